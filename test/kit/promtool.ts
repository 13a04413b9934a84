import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stringify } from 'yaml'

/** Why a test that needs promtool is skipped, with what was not shown then; false where it is installed. */
export function skipWithoutPromtool(notShown: string): string | false {
  return spawnSync('promtool', ['--version']).status === 0
    ? false
    : `SKIPPED: no promtool on PATH (Debian: prometheus): ${notShown}`
}

/** Runs `promtool test rules` on the text of a rule file, a step each minute; fails with what promtool says. */
export function assertRules(rules: string, tests: readonly object[]): void {
  const folder = mkdtempSync(join(tmpdir(), 'cloakroom-rules-'))
  try {
    writeFileSync(join(folder, 'rules.yaml'), rules)
    const file = join(folder, 'tests.yaml')
    writeFileSync(file, stringify({ rule_files: ['rules.yaml'], evaluation_interval: '1m', tests }))
    const { status, stdout, stderr } = spawnSync('promtool', ['test', 'rules', file], { encoding: 'utf8' })
    assert.equal(status, 0, stderr + stdout)
  } finally {
    rmSync(folder, { recursive: true })
  }
}
