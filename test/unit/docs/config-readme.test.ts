import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { runRouteTests } from '../../../src/cli/config/route-tests.ts'
import type { Config } from '../../../src/config/config.ts'
import { createDialect } from '../../../src/oidc/grants/dialects.ts'
import type { Parameters } from '../../../src/oidc/token-endpoint/openid-client.ts'
import {
  anchorOf,
  blocksOf,
  codeIn,
  fileText,
  loadWithSecrets,
  tableRows,
} from '../../kit/house/readme-parts.ts'

const PAGE = fileText('config/README.md')
const CHAPTER = PAGE.split(/^## /m).find((part) => part.startsWith('Your provider\n')) ?? ''
const SECTIONS = CHAPTER.split(/^### /m).slice(1)
const PROVIDERS = SECTIONS.map((section) => section.split('\n', 1)[0]!)

/** The resource and the login of each block are asked for in one of these ways, and no other. */
const DIALECTS = ['scope', 'resource', 'resource-indicator', 'audience']

describe('the chapter "Your provider" of config/README.md', () => {
  test('has a section for every provider that people ask for', () => {
    for (const name of [
      'Entra ID',
      'AD FS',
      'Keycloak',
      'Auth0',
      'Okta',
      'Cognito',
      'Google',
      'Ping',
      'Dex',
    ]) {
      assert.ok(
        PROVIDERS.some((provider) => provider.includes(name)),
        name,
      )
    }
  })

  test('leads from its table of dialects to every section', () => {
    const [links, dialects] = [0, 1].map((column) =>
      tableRows(CHAPTER, 'provider').map((row) => row[column]),
    ) as [string[], string[]]
    for (const name of PROVIDERS) assert.ok(links.join().includes(`(#${anchorOf(name)})`), name)
    assert.deepEqual(dialects.map(codeIn).toSorted(), [...DIALECTS, 'scope', 'scope'].toSorted())
  })

  for (const section of SECTIONS) {
    const blocks = blocksOf(section, 'yaml')

    test(`shows a whole config for ${section.split('\n', 1)[0]}`, () => {
      assert.ok(blocks.length >= 1)
      for (const text of blocks) assert.match(text, /^# config\/cloakroom\.yaml \(complete\) for /)
    })

    const requests = blocksOf(section, 'text')
    test(`shows the requests of each config for ${section.split('\n', 1)[0]}`, () => {
      assert.equal(requests.length, blocks.length)
    })

    for (const [index, text] of blocks.entries()) {
      test(`shows a config${text.split('\n', 1)[0]!.split('(complete)')[1]} that makes the requests that are shown`, () => {
        const sent = requestsOf(loadWithSecrets(text).config)
        assert.deepEqual(parametersIn(requests[index] ?? ''), sent)
      })

      test(`shows a config${text.split('\n', 1)[0]!.split('(complete)')[1]} that loads without a surprise`, () => {
        const { config, warnings } = loadWithSecrets(text)
        assert.deepEqual(runRouteTests(config), [])
        assert.deepEqual(warnings, [])
        assert.equal(config.publicUrl, 'https://app.example.com')
      })
    }
  }
})

/** What Cloakroom sends under a config: in the sign-in, with the code, and in the refresh of each resource. */
function requestsOf(config: Config): Record<string, Parameters> {
  const named = config.routes.flatMap(({ resource }) => resource ?? [])
  const inUse = [...new Set(named)].map((name) => config.resources[name]!)
  const dialect = createDialect(config.provider, inUse)
  const signIn = dialect.signInGrant(inUse[0])
  const more = Object.entries(config.provider.authorizationParams)
  const refreshes = inUse.map((resource) => [resource.name, dialect.refreshGrant(resource, signIn)] as const)
  return {
    'sign-in': [...dialect.authorizationRequest(inUse[0]), ...more],
    code: dialect.codeGrant(inUse[0]),
    ...Object.fromEntries(refreshes),
  }
}

/** The same as it is written: `NAME: PARAMETER=VALUE & PARAMETER=VALUE`, a request in each line. */
function parametersIn(text: string): Record<string, Parameters> {
  const lines = text.trim().split('\n')
  const requests = lines.map((line): [string, Parameters] => {
    const [, name = '', written = ''] = /^([\w-]+):\s*(.*)$/.exec(line) ?? []
    const parameters = written === '' ? [] : written.split(' & ')
    return [name, parameters.map((one) => [one.split('=', 1)[0]!, one.slice(one.indexOf('=') + 1)])]
  })
  return Object.fromEntries(requests)
}
