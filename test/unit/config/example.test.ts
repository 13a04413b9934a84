import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { runRouteTests } from '../../../src/cli/config/route-tests.ts'
import { configJsonSchema } from '../../../src/config/schema/schema.ts'
import { load, SESSION_KEY, SESSION_KEY_2 } from '../../kit/config/base-config.ts'

const text = readFileSync(new URL('../../../config/cloakroom.example.yaml', import.meta.url), 'utf8')

const files = {
  '/run/secrets/client-secret': 'hush\n',
  '/run/secrets/session-key-1': `${SESSION_KEY}\n`,
  '/run/secrets/session-key-2': `${SESSION_KEY_2}\n`,
}

test('the example config is valid, warned about its placeholder alone, and passes its own tests', () => {
  const { config, warnings } = load(text, { files })
  assert.deepEqual(
    warnings.map(({ path }) => path),
    ['provider.issuer'],
  )
  assert.match(warnings[0]!.message, /placeholder "TENANT_ID"/)
  assert.deepEqual(runRouteTests(config), [])
})

test('the example config has every key there is, written or in a comment', () => {
  type Schema = { properties?: Record<string, Schema>; items?: Schema; oneOf?: Schema[] }
  const keysOf = ({ properties = {}, items, oneOf = [] }: Schema): string[] => [
    ...Object.keys(properties),
    ...[...Object.values(properties), ...(items ? [items] : []), ...oneOf].flatMap(keysOf),
  ]
  const names = new Set(keysOf(configJsonSchema() as Schema))
  // Of TLS, the example shows the usual two.
  names.delete('cert')
  assert.deepEqual(
    [...names].filter((name) => !new RegExp(`\\b${name}:`).test(text)),
    [],
  )
  const topLevel = Object.keys((configJsonSchema() as Schema).properties ?? {})
  assert.deepEqual(
    topLevel.filter((name) => !text.includes(`\n${name}:`)),
    [],
  )
})

test('the example config points editors to the schema beside it', () => {
  assert.equal(text.split('\n')[0], '# yaml-language-server: $schema=./cloakroom.schema.json')
})
