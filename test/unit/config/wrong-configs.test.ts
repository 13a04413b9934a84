import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { checkCommand } from '../../../src/cli/config/check.ts'
import { BASE, ENV } from '../../kit/config/base-config.ts'
import { fileText } from '../../kit/house/readme-parts.ts'

/** What becomes of the whole file. */
const FILES: Readonly<Record<string, (text: string) => string>> = {
  utf16le: (text) => Buffer.from(`\ufeff${text}`, 'utf16le').toString('utf8'),
  utf16be: (text) => Buffer.from(`\ufeff${text}`, 'utf16le').swap16().toString('utf8'),
  latin1: (text) => Buffer.from(text, 'latin1').toString('utf8'),
  cr: (text) => text.replaceAll('\n', '\r'),
  empty: () => '',
  hello: () => 'hello',
}

const CASES = fileText('test/unit/config/corpus/wrong-configs.txt').split(/^## /m).slice(1)

describe('the report of a wrong config', () => {
  test('is approved for a hundred of them', () => assert.ok(CASES.length >= 100))

  for (const text of CASES) {
    const [head = '', ...rest] = text.split('\n\n')
    const [name = '', ...edits] = head.split('\n')
    test(`is as approved: ${name}`, async () => {
      let out = ''
      const stdout = { write: (part: string) => (out += part) }
      const config = edited(edits)
      const code = await checkCommand(['-'], { stdout, stderr: stdout, env: ENV, readStdin: () => config })
      assert.equal(out.trimEnd(), rest.join('\n\n').trimEnd())
      assert.equal(code, 78)
      assert.doesNotMatch(out, /hush|correct-horse|undefined|\[object/)
    })
  }
})

/** The valid config with runs of lines `-` replaced by the lines `+` behind them. */
function edited(edits: readonly string[]): string {
  let text = BASE
  for (const [, from = '', to = ''] of edits.join('\n').matchAll(/((?:^-.*\n?)+)((?:^\+.*\n?)*)/gm)) {
    const [before, after] = [from, to].map((lines) => lines.replaceAll(/^[-+]/gm, '').replace(/\n?$/, '\n'))
    assert.equal(text.split(before!).length, 2, `not once in the valid config: ${before}`)
    text = text.replace(before!, () => (to === '' ? '' : unescaped(after!)))
  }
  const change = edits.find((line) => line.startsWith('!'))
  return change === undefined ? text : FILES[change.slice(1)]!(text)
}

function unescaped(text: string): string {
  return text.replaceAll(/\\(?:(t)|u([0-9a-f]{4})|\\)/g, (_, tab, code) => {
    if (tab) return '\t'
    return code ? String.fromCharCode(Number.parseInt(code, 16)) : '\\'
  })
}
