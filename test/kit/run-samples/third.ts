import { test } from 'node:test'

test('of the file behind', () => undefined)
test('that fails', () => {
  throw new Error('on purpose')
})
