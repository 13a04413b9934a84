import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const manifest = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'))

test('the package is cloakroom-bff, because another project has the name, and its command is cloakroom', () => {
  assert.deepEqual([manifest.name, Object.keys(manifest.bin)], ['cloakroom-bff', ['cloakroom']])
})

for (const word of ['--version', '-V', 'version']) {
  test(`cloakroom ${word} prints the version and nothing else`, () => {
    const command = fileURLToPath(new URL('../../../src/cloakroom.js', import.meta.url))
    const { stdout, stderr, status } = spawnSync(process.execPath, [command, word], { encoding: 'utf8' })
    assert.deepEqual([stdout, stderr, status], [`${manifest.version}\n`, '', 0])
  })
}
