import assert from 'node:assert/strict'
import { existsSync, readdirSync } from 'node:fs'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Script } from 'node:vm'
import { parse } from 'yaml'
import { createMetrics } from '../../../src/admin/metrics.ts'
import { runRouteTests } from '../../../src/cli/config/route-tests.ts'
import { configJsonSchema } from '../../../src/config/schema/schema.ts'
import type { ErrorCode } from '../../../src/errors.ts'
import { statusOf } from '../../../src/http/problem.ts'
import { configOf } from '../../kit/chart.ts'
import {
  anchorOf,
  blocksOf,
  codeIn,
  fileText,
  loadWithSecrets,
  problemsOf,
  ROOT,
  schemaFields,
  tableRows,
} from '../../kit/house/readme-parts.ts'

type Data = Record<string, unknown>

const PAGES = ['README.md', 'config/README.md', 'helm/README.md', 'src/README.md', 'test/README.md']
const [README, CONFIG, HELM, SRC, TEST] = PAGES.map(fileText) as [string, string, string, string, string]
const [REFERENCE = '', AFTER = ''] = CONFIG.split(/^## Your provider\n[\s\S]*?(?=^## )/m)
/** Everything but the chapter on providers, which has a test of its own. */
const PROSE = [README, REFERENCE, AFTER, HELM, SRC, TEST].join('\n')
const YAML_BLOCKS = blocksOf(PROSE, 'yaml')
const COMPLETE = YAML_BLOCKS.filter((block) => block.startsWith('# config/cloakroom.yaml (complete)'))
const VALUES = YAML_BLOCKS.filter((block) => block.startsWith('# values.yaml'))
const PARTS = YAML_BLOCKS.filter((block) => block.startsWith('# other '))

/** Configs that examples are tried in: not every key can stand beside every other. */
const EXAMPLE_BASES: readonly Data[] = [
  {},
  parse(PARTS.find((part) => part.includes('private_key_jwt'))!) as Data,
  parse(PARTS.find((part) => part.includes('method: certificate'))!) as Data,
  parse(PARTS.find((part) => part.includes('method: workload_identity'))!) as Data,
  parse(PARTS.find((part) => part.includes('token_exchange'))!) as Data,
  { tests: [{ request: 'GET /', expect: {} }] },
  { session: withStore({ cluster: ['redis-1:6379'], tls: {} }) },
  { session: withStore({ sentinels: ['sentinel-1:26379'], masterName: 'mymaster', tls: {} }) },
].map((part) => ({ ...(parse(COMPLETE[0]!) as Data), ...part }))

/** The session of the first complete config, with Redis somewhere else. */
function withStore(store: Data): Data {
  const { session } = parse(COMPLETE[0]!) as { session: Data }
  return { ...session, store: { type: 'redis', ...store } }
}

describe('the configs in the documents', () => {
  test('every one of them says what it is', () => {
    assert.equal(COMPLETE.length + VALUES.length + PARTS.length, YAML_BLOCKS.length)
    assert.ok(COMPLETE.length >= 2 && VALUES.length === 1 && PARTS.length >= 2)
  })

  for (const [index, text] of COMPLETE.entries()) {
    test(`complete config ${index + 1} loads, and its own tests pass`, () => {
      assert.deepEqual(runRouteTests(loadWithSecrets(text).config), [])
    })
  }

  test('the first one has nothing to warn about', () => {
    assert.deepEqual(loadWithSecrets(COMPLETE[0]!).warnings, [])
  })

  for (const text of PARTS) {
    test(`the part "${text.split('\n', 1)[0]}" fits into the first one`, () => {
      const whole = { ...(parse(COMPLETE[0]!) as Data), ...(parse(text) as Data) }
      assert.deepEqual(runRouteTests(loadWithSecrets(JSON.stringify(whole)).config), [])
    })
  }

  test("the chart's values make a config that loads", () => {
    const ours = merged(parse(fileText('helm/cloakroom/values.yaml')) as Data, parse(VALUES[0]!) as Data)
    assert.deepEqual(loadWithSecrets(JSON.stringify(configOf(ours))).warnings, [])
  })
})

describe('the config reference', () => {
  const rows = tableRows(PROSE, 'key').filter(([key]) => !key?.startsWith('`cloakroom:'))
  const fields = schemaFields(configJsonSchema() as Parameters<typeof schemaFields>[0])

  test('has every key of the schema, and no other', () => {
    const documented = rows.map(([key]) => codeIn(key))
    assert.deepEqual(documented.toSorted(), [...new Set(fields.map(({ path }) => path))].toSorted())
  })

  for (const [key = '', , standard = '', example = ''] of rows) {
    const path = codeIn(key)!

    test(`${path} has the default of the schema`, () => {
      const field = fields.find((candidate) => candidate.path === path)!
      const isWritten = codeIn(standard) !== undefined
      assert.equal(standard === 'required', field.isRequired)
      assert.equal(isWritten, field.default !== undefined, standard)
      if (isWritten) assert.deepEqual(parse(codeIn(standard)!), field.default)
    })

    test(`${path} has an example that is accepted`, () => {
      const value = codeIn(example)
      assert.ok(value !== undefined, example)
      const isAccepted = EXAMPLE_BASES.some(
        (base) => !problemsOf(JSON.stringify(withField(base, path, parse(value)))).some(isAbout(path)),
      )
      assert.ok(isAccepted, value)
    })
  }
})

describe('the rest of the documents', () => {
  test('has every problem code with its status, and no other', () => {
    const [, union = ''] = /export type ErrorCode =\n([\s\S]*?)\n\n/.exec(fileText('src/errors.ts')) ?? []
    const codes = [...union.matchAll(/'(\w+)'/g)].map(([, code]) => code as ErrorCode)
    const documented = tableRows(PROSE, 'status').map(([status, code]) => `${status} ${codeIn(code)}`)
    assert.ok(codes.length > 10)
    assert.deepEqual(documented.toSorted(), codes.map((code) => `${statusOf(code)} ${code}`).toSorted())
  })

  test('has every metric of our own, and no other', async () => {
    const { text } = await createMetrics({
      version: '0',
      isStoreLive: () => true,
      droppedLogLines: () => 0,
      openWebSockets: () => 0,
    }).render()
    const names = [...text.matchAll(/^# TYPE (cloakroom_\w+)/gm)].map(([, name]) => name)
    const documented = tableRows(PROSE, 'metric').map(([name]) => codeIn(name))
    assert.deepEqual(documented.toSorted(), names.toSorted())
  })

  test('has every command, and no other', () => {
    const [, table = ''] = /const COMMANDS[^{]*\{\n([\s\S]*?)\n\}/.exec(fileText('src/main.ts')) ?? []
    const commands = [...table.matchAll(/^ {2}(\w+):/gm)].map(([, name]) => name)
    const documented = tableRows(PROSE, 'command').map(([cell]) => codeIn(cell)?.split(' ')[0])
    assert.ok(commands.length >= 5)
    assert.deepEqual(documented.toSorted(), commands.toSorted())
  })

  test('names only scripts that there are', () => {
    const { scripts } = JSON.parse(fileText('package.json')) as { scripts: Record<string, string> }
    for (const [, name = ''] of PROSE.matchAll(/`npm run (\w+)`/g)) assert.ok(name in scripts, name)
  })

  for (const page of PAGES) {
    test(`${page} names only files and headings that there are`, () => {
      for (const [, target = ''] of fileText(page).matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^https:/.test(target)) continue
        const [path = '', anchor] = target.split('#')
        const file = new URL(path === '' ? page : path, new URL(page, ROOT))
        assert.ok(existsSync(fileURLToPath(path === '' ? new URL(page, ROOT) : file)), target)
        if (anchor === undefined) continue
        const text = path === '' ? fileText(page) : fileText(file.href.slice(ROOT.href.length))
        const anchors = [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => anchorOf(heading))
        assert.ok(anchors.includes(anchor), target)
      }
    })

    test(`${page} names only source files that there are`, () => {
      for (const [, path = ''] of fileText(page).matchAll(/`((?:src|test|helm)\/[\w./-]+\.\w+)`/g))
        assert.ok(existsSync(fileURLToPath(new URL(path, ROOT))), path)
    })

    test(`${page} tells nobody to run another project's package`, () => {
      assert.doesNotMatch(fileText(page), /npm (?:i|install|exec)\b[^\n]*\bcloakroom\b|npx cloakroom-bff/)
    })
  }

  test('the README is short enough to be read to the end', () => {
    assert.ok(Buffer.byteLength(README) <= 12_288, `${Buffer.byteLength(README)} bytes`)
  })

  test('src/README.md names every room, and only files that there are in its walk', () => {
    const rooms = readdirSync(fileURLToPath(new URL('src/', ROOT)), { withFileTypes: true })
    for (const room of rooms.filter((one) => one.isDirectory()))
      assert.ok(SRC.includes(`${room.name}/`), room.name)
    for (const [, path = ''] of SRC.matchAll(/`((?!src\/|test\/)[a-z][\w-]*\/[\w./-]+\.ts)`/g))
      assert.ok(existsSync(fileURLToPath(new URL(`src/${path}`, ROOT))), path)
  })

  test('shows JavaScript that parses', () => {
    const scripts = blocksOf(README, 'js')
    assert.ok(scripts.length > 0)
    for (const script of scripts) assert.doesNotThrow(() => new Script(script))
  })
})

/** `path` in the words of the reference: the first item of a list, the resource `orders`. */
function withField(config: Data, path: string, value: unknown): Data {
  const [step = '', ...rest] = path.replaceAll('NAME', 'orders').replaceAll('[]', '.0').split('.')
  if (rest.length === 0) return { ...config, [step]: value }
  const child = (config[step] ?? {}) as Data
  const changed = withField(child, rest.join('.'), value)
  return { ...config, [step]: Array.isArray(child) ? Object.values(changed) : changed }
}

/** Whether a problem is about this field or what is in it. */
function isAbout(path: string): (problem: { path: string }) => boolean {
  const name = path.replaceAll('NAME', 'orders').replaceAll('[]', '[0]')
  return (problem) => problem.path === name || problem.path.startsWith(`${name}[`)
}

function merged(base: Data, over: Data): Data {
  const isData = (value: unknown): value is Data =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
  const members = Object.entries(over).map(([name, value]) => {
    const before = base[name]
    return [name, isData(before) && isData(value) ? merged(before, value) : value]
  })
  return { ...base, ...Object.fromEntries(members) }
}
