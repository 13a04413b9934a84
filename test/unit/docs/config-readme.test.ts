import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { runRouteTests } from '../../../src/cli/route-tests.ts'
import { anchorOf, blocksOf, codeIn, fileText, loadWithSecrets, ROOT, tableRows } from './readme-parts.ts'

const PAGE = fileText('config/README.md')
const CHAPTER = PAGE.split(/^## /m).find((part) => part.startsWith('Your provider\n')) ?? ''
const SECTIONS = CHAPTER.split(/^### /m).slice(1)
const PROVIDERS = SECTIONS.map((section) => section.split('\n', 1)[0]!)

/** The resource and the login of each block are asked for in one of these ways, and no other. */
const DIALECTS = ['scope', 'resource', 'resource-indicator', 'audience']

/** Keycloak, Cognito, Google and PingOne give a refresh token without `offline_access`. */
const EXPECTED_WARNINGS = ['provider.scopes']

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

    for (const text of blocks) {
      test(`shows a config${text.split('\n', 1)[0]!.split('(complete)')[1]} that loads without a surprise`, () => {
        const { config, warnings } = loadWithSecrets(text)
        assert.deepEqual(runRouteTests(config), [])
        for (const { path, message } of warnings) assert.ok(EXPECTED_WARNINGS.includes(path), message)
        assert.equal(config.publicUrl, 'https://app.example.com')
      })
    }
  }
})

test('config/README.md names only files and headings that there are', () => {
  const headings = (markdown: string) =>
    [...markdown.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => anchorOf(heading))
  for (const [, target = ''] of PAGE.matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^https:/.test(target)) continue
    const [file = '', anchor] = target.split('#')
    const url = new URL(file, new URL('config/README.md', ROOT))
    assert.ok(existsSync(fileURLToPath(url)), target)
    if (anchor === undefined) continue
    const markdown = file === '' ? PAGE : fileText(url.href.slice(ROOT.href.length))
    assert.ok(headings(markdown).includes(anchor), target)
  }
})
