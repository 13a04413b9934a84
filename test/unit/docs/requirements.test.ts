import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { fileText, ROOT, tableRows } from '../../kit/house/readme-parts.ts'

/** The numbers that there are, from and to. */
const NUMBERS: readonly (readonly [number, number])[] = [
  [1, 38],
  [40, 67],
  [70, 78],
  [80, 86],
  [90, 98],
  [100, 113],
  [120, 134],
  [140, 154],
  [160, 197],
  [200, 212],
]

const rows = tableRows(fileText('test/REQUIREMENTS.md'), 'number')

test('every requirement has one line, in order', () => {
  const numbers = NUMBERS.flatMap(([from, to]) =>
    Array.from({ length: to - from + 1 }, (_, index) => `R-${String(from + index).padStart(3, '0')}`),
  )
  assert.deepEqual(
    rows.map(([number]) => number),
    numbers,
  )
})

test('a line names tests or a reason, every file is there, and every title is in it', () => {
  for (const [number = '', , shown = ''] of rows) {
    assert.ok(shown.length > 10, `${number} says neither test nor reason`)
    for (const [, name = '', title] of shown.matchAll(/`([\w./-]+)`(?: “([^”]+)”)?/g)) {
      const path = `test/${name}.test.ts`
      assert.ok(existsSync(fileURLToPath(new URL(path, ROOT))), `${number}: there is no ${path}`)
      if (title !== undefined)
        assert.ok(fileText(path).includes(title), `${number}: ${path} has no “${title}”`)
    }
  }
})
