import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../../../', import.meta.url))

test('a file that ends its process takes nothing from the others in it, and both it and a failing test are named', async () => {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env
  const { code, text } = await new Promise<{ code: unknown; text: string }>((resolve) => {
    execFile(
      process.execPath,
      ['test/run.ts', 'test/kit/run-samples/*.ts'],
      { cwd: ROOT, env },
      (error, text) => {
        resolve({ code: error?.code, text })
      },
    )
  })
  assert.equal(code, 1)
  assert.match(text, /✔ of the file before/)
  assert.match(text, /✔ of the file behind/)
  assert.match(text, /test at test\/kit\/run-samples\/third\.ts:4:1\n✖ that fails/)
  assert.match(text, /The process of these files ended or stood still:\n {2}test\/kit\/run-samples\/second-/)
})
