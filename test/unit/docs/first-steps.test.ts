import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Command } from '../../../src/cli/command.ts'
import { checkCommand } from '../../../src/cli/config/check.ts'
import { explainCommand } from '../../../src/cli/config/explain.ts'
import { serveCommand } from '../../../src/cli/serve.ts'
import { BASE, changed, ENV } from '../../kit/config/base-config.ts'
import { fileText } from '../../kit/house/readme-parts.ts'

const [, SECTION = ''] = fileText('config/README.md').split(/^### (?=From zero to two routes)/m)
const ROWS = SECTION.split(/^#/m, 1)[0]!
  .split('\n')
  .filter((line) => line.startsWith('| `'))
  .map((line) => line.split('|').map((cell) => cell.trim()))

/** What the row of this mistake says in code marks. */
function told(mistake: string): string {
  const row = ROWS.find((cells) => cells[2] === mistake)
  return /`(.+?)`(?:,|$)/.exec(row?.[3] ?? '')?.[1] ?? 'no such row'
}

async function said(command: Command, args: string[], { text = BASE, env = {} } = {}): Promise<string> {
  let out = ''
  const output = { write: (part: string) => (out += part) }
  await command(args, { stdout: output, stderr: output, env: { ...ENV, ...env }, readStdin: () => text })
  return out
}

describe('the mistakes of a beginner are answered as the documents say', () => {
  const CHECKED: [mistake: string, text: string][] = [
    ['a tab before `upstream`', changed('    upstream: http://orders', '\tupstream: http://orders')],
    [
      'the issuer with `/.well-known/openid-configuration`',
      changed('https://id.example.com', 'https://id.example.com/.well-known/openid-configuration'),
    ],
    ['`client_id`', changed('  clientId', '  client_id')],
    ['a route with `resource: biling`', changed('    resource: billing', '    resource: biling')],
  ]
  for (const [mistake, text] of CHECKED) {
    test(`check: ${mistake}`, async () => {
      const report = await said(checkCommand, ['-'], { text })
      assert.ok(report.includes(told(mistake)), report)
    })
  }

  test('no file, a path without a route, and a level of the log that is none', async () => {
    const absent = await said(checkCommand, ['--config', 'nowhere.yaml'])
    assert.ok(absent.includes(told('no file yet')), absent)
    const text = BASE.replace(/ {2}- path: \/\n(?: {4}.*\n)+/, '')
    const refused = await said(explainCommand, ['--config', '-', 'GET', '/api/order/42'], { text })
    assert.ok(refused.includes(told('a path that no route has')), refused)
    const level = await said(serveCommand, ['--config', 'nowhere.yaml'], { env: { LOG_LEVEL: 'warning' } })
    assert.ok(level.includes(told('`LOG_LEVEL=warning`')), level)
  })
})
