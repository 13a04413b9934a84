import { test } from 'node:test'

test('of the file before', () => undefined)
