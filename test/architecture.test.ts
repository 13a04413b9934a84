import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import {
  FOLDER_FILES,
  filesPerFolder,
  longFilesWithoutReason,
  SMALL_LINES,
  smallFilesOfOneImporter,
} from './kit/house/file-layout.ts'
import { findImportCycles, withoutTypeImports } from './kit/house/import-cycles.ts'
import {
  parseSource,
  ROOT,
  readSources,
  type SourceFile,
  type SourceImport,
} from './kit/house/source-files.ts'

/**
 * Who may import whom. A room is a folder of src/ or a single file there. `values` may be imported in any way,
 * `types` with `import type` only. Every room may import from itself.
 */
const ROOMS: Record<string, { values: string[]; types: string[] }> = {
  errors: { values: [], types: [] },
  log: { values: [], types: [] },
  async: { values: [], types: ['log'] },
  config: { values: ['errors', 'async'], types: [] },
  tokens: { values: ['errors', 'async'], types: ['config', 'store', 'log'] },
  session: { values: ['errors', 'async'], types: ['config', 'store', 'log'] },
  oidc: { values: ['errors', 'async'], types: ['config', 'store', 'log'] },
  proxy: { values: ['errors', 'async', 'session'], types: ['tokens', 'config', 'log'] },
  http: { values: ['errors', 'async', 'session', 'oidc'], types: ['tokens', 'config', 'log'] },
  store: { values: ['errors', 'async'], types: ['tokens', 'session', 'log'] },
  admin: {
    values: ['errors', 'async'],
    types: ['config', 'tokens', 'session', 'oidc', 'proxy', 'http', 'store', 'log'],
  },
  client: { values: [], types: [] },
  demo: { values: ['errors', 'async', 'log'], types: [] },
  app: {
    values: [
      'version',
      'errors',
      'async',
      'log',
      'config',
      'tokens',
      'session',
      'oidc',
      'proxy',
      'http',
      'store',
      'admin',
      'client',
    ],
    types: [],
  },
  cli: {
    values: [
      ...[
        'errors',
        'async',
        'log',
        'config',
        'tokens',
        'session',
        'oidc',
        'proxy',
        'http',
        'store',
        'admin',
        'client',
      ],
      ...['demo', 'app', 'version'],
    ],
    types: [],
  },
  main: { values: ['cli', 'version'], types: [] },
  version: { values: [], types: [] },
}

/** One vendor, one door: the only file, or the only folder with one such file, that may import a package. */
const DOORS: Record<string, string | readonly string[]> = {
  '@opentelemetry/api': 'src/admin/traces.ts',
  '@opentelemetry/exporter-trace-otlp-http': 'src/admin/traces.ts',
  '@opentelemetry/resources': 'src/admin/traces.ts',
  '@opentelemetry/sdk-trace': 'src/admin/traces.ts',
  'connect-redis': 'src/store/',
  'express-session': 'src/session/',
  'http-proxy-middleware': 'src/proxy/',
  'lru-cache': 'src/async/expiring-map.ts',
  'openid-client': 'src/oidc/token-endpoint/openid-client.ts',
  'prom-client': 'src/admin/',
  helmet: 'src/http/',
  ioredis: 'src/store/redis/',
  jose: 'src/oidc/token-endpoint/jwt.ts',
  pino: 'src/log.ts',
  // In a checkout alone: the build has minified.
  terser: 'src/http/endpoints/browser-helper.ts',
  // Two doors, because requests to upstreams and calls to the provider have nothing in common but the library.
  undici: ['src/proxy/', 'src/oidc/token-endpoint/provider-connections.ts'],
  yaml: 'src/config/',
  zod: 'src/config/',
}

/** Packages that are run and not imported, and those that only bring types. */
const COMMANDS = /^(@types\/|@biomejs\/biome$|node$|terser$|typescript$)/

/** Names that were ours alone, each with the field's word for it. */
const PRIVATE_WORDS =
  /\b\w*(?:[Uu]nderWay|[Ss]helf|[Bb]urnt(?!')|[Ll]eftAlone|[Ll]astMinute|[Rr]eminder|[Bb]elievedC|[Pp]assage|[Uu]pgradeDoor|[Tt]akeTurn|[Pp]endingAnswer)\w*/

/** Express is free in these rooms; node: built-ins are free everywhere. */
const EXPRESS_ROOMS = ['http', 'session', 'proxy', 'admin']

/** The demo is a house of its own: an identity provider, two APIs and a page, with their own vendors. */
const DEMO_PACKAGES = ['express', 'jose', 'oidc-provider']

const sources = readSources('src')

describe('architecture', () => {
  test('every file lives in a room of the table', () => {
    const homeless = sources.filter(({ path }) => !(roomOf(path) in ROOMS)).map(({ path }) => path)
    fail('these files live in no room; add the room to ROOMS or move them', homeless)
  })

  test('rooms import only what the table allows', () => {
    const broken = eachImport(sources, (source, one) => {
      if (one.file === undefined) return undefined
      if (!one.file.startsWith('src/')) return `leaves src/ (${one.specifier})`
      const from = roomOf(source.path)
      const to = roomOf(one.file)
      const allowed = ROOMS[from]
      if (from === to || allowed?.values.includes(to)) return undefined
      if (allowed?.types.includes(to))
        return one.isType ? undefined : `${from} may import only types of ${to}: use "import type"`
      return `${from} may not import ${to} (${one.specifier}); it may import ${listed(allowed)}`
    })
    fail('imports that cross a wall', broken)
  })

  test('imports name files that exist', () => {
    const known = new Set(sources.map(({ path }) => path))
    const broken = eachImport(sources, (_source, { file, specifier }) =>
      file === undefined || known.has(file) ? undefined : `no such file: ${specifier}`,
    )
    fail('imports that lead nowhere', broken)
  })

  test('no two files need each other at run time', () => {
    fail(
      'import cycles; let one side import types only, or move what both need',
      circlesOf(withoutTypeImports(sources)),
    )
  })

  test('no two files need each other, types included', () => {
    const advice = 'files on import circles; move what both need to the file that provides it'
    fail(advice, circlesOf(sources))
  })

  test('a folder can be read at a glance', () => {
    const crowded = [...filesPerFolder(sources)].filter(([, count]) => count > FOLDER_FILES)
    fail(
      `folders of more than ${FOLDER_FILES} files; give them folders of their own`,
      crowded.map(([folder, count]) => `${folder}: ${count} files`),
    )
  })

  test('a long file says why it is one', () => {
    fail('long files; say "because" in the first comment, or split', longFilesWithoutReason(sources))
  })

  test('a small file has more than one importer', () => {
    const advice = `files under ${SMALL_LINES} lines; move them into their only importer`
    fail(advice, smallFilesOfOneImporter(sources))
  })

  test('each package comes in through one door', () => {
    const broken = eachImport(sources, ({ path }, one) => {
      const name = packageOf(one)
      if (name === undefined) return undefined
      const room = roomOf(path)
      if (room === 'demo') return DEMO_PACKAGES.includes(name) ? undefined : `the demo may not import ${name}`
      if (name === 'express')
        return EXPRESS_ROOMS.includes(room) ? undefined : `express belongs to ${EXPRESS_ROOMS.join(', ')}`
      const door = DOORS[name]
      if (door === undefined) return `${name} has no door yet; add it to DOORS`
      return [door].flat().some((one) => path.startsWith(one))
        ? undefined
        : `${name} comes in through ${door} only`
    })
    fail('packages imported past their door', broken)
  })

  test('each door is one file', () => {
    const users = new Map<string, Set<string>>()
    for (const { path, imports } of sources)
      for (const name of imports.flatMap((one) => packageOf(one) ?? []))
        if (name !== 'express' && roomOf(path) !== 'demo')
          users.set(name, (users.get(name) ?? new Set()).add(path))
    const shared = [...users].filter(([name, paths]) => paths.size > [DOORS[name]].flat().length)
    fail(
      'packages that several files import',
      shared.map(([name, paths]) => `${name}: ${[...paths].join(', ')}`),
    )
  })

  test('each declared package is imported, and does work', () => {
    const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Record<string, object>
    const imported = (files: readonly SourceFile[]) =>
      new Set(files.flatMap(({ imports }) => imports.flatMap((one) => packageOf(one) ?? [])))
    const declared = (kind: string) => Object.keys(manifest[kind] ?? {})
    const [bySource, byTests] = [imported(sources), imported(readSources('test'))]
    fail(
      'dependencies that no source imports',
      declared('dependencies').filter((name) => !bySource.has(name)),
    )
    fail(
      'development dependencies that nothing uses',
      declared('devDependencies').filter((name) => !byTests.has(name) && !COMMANDS.test(name)),
    )
  })

  test('the code speaks the words of the field', () => {
    fail(
      'words that a stranger must ask about; src/README.md has a glossary',
      eachLine(sources, PRIVATE_WORDS),
    )
  })

  test('no default exports and no barrels', () => {
    fail('default exports; name what you export', eachLine(sources, /^export\s+default\b|\bas\s+default\b/))
    fail('barrels; import from the file that has it', [
      ...sources.filter(({ path }) => path.endsWith('/index.ts')).map(({ path }) => path),
      ...eachLine(sources, /^export\s+(type\s+)?\*/),
    ])
  })

  test('the clock is read in async/clock.ts only', () => {
    // What runs in a browser has a clock of its own.
    const ours = sources.filter(({ path }) => !isDemo(path) && roomOf(path) !== 'client')
    const others = ours.filter(({ path }) => path !== 'src/async/clock.ts')
    fail('take a clock as a parameter', eachLine(others, /\bDate\.now\b|\bnew Date\(\s*\)/))
    // log.ts imports nothing.
    const timed = others.filter(({ path }) => path !== 'src/log.ts')
    const timers = /\bperformance\.now\b|(?<!\.)\bset(Timeout|Interval)\(|['"]node:timers|timers\/promises/
    fail('wait by a clock', eachLine(timed, timers))
  })

  test('the environment is read in cli, main and config only', () => {
    const others = sources.filter(({ path }) => !['cli', 'main', 'config'].includes(roomOf(path)))
    fail('environment variables belong to the configuration', eachLine(others, /\bprocess\.env\b/))
  })

  test('nothing is left for later', () => {
    // Written in pieces, so that this file does not find itself.
    const marks = new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX'].join('|')})\\b`)
    const everything = [...sources, ...readSources('test')]
    const found = everything.flatMap(({ path, lines }) =>
      lines.flatMap((line, index) => (marks.test(line) ? `${path}:${index + 1}: ${line.trim()}` : [])),
    )
    fail('do it now or write an issue', found)
  })
})

describe('the architecture test itself', () => {
  const text = [
    "import type { A } from './a.ts'",
    'import {',
    '  type B,',
    '  b,',
    "} from '../errors.ts'",
    "import 'side-effect'",
    "// import { c } from './comment.ts'",
    '/*',
    "import { d } from './block.ts'",
    '*/',
    "const e = await import('./later.ts')",
    "type F = import('./types.ts').F",
    'const page = `',
    "import { g } from './page.js'",
    '`',
    "export { h } from './h.ts'",
  ].join('\n')

  test('finds imports of every form, and none in comments and templates', () => {
    const { imports } = parseSource('src/http/edge.ts', text)
    assert.deepEqual(
      imports.map(({ specifier, line, isType, file }) => [specifier, line, isType, file]),
      [
        ['./a.ts', 1, true, 'src/http/a.ts'],
        ['../errors.ts', 2, false, 'src/errors.ts'],
        ['side-effect', 6, false, undefined],
        ['./h.ts', 16, false, 'src/http/h.ts'],
        ['./later.ts', 11, false, 'src/http/later.ts'],
        ['./types.ts', 12, true, 'src/http/types.ts'],
      ],
    )
  })

  test('finds a cycle of three, and one of types unless they are taken out', () => {
    const files = [
      parseSource('src/a.ts', "import { b } from './b.ts'"),
      parseSource('src/b.ts', "import { c } from './c.ts'"),
      parseSource('src/c.ts', "import { a } from './a.ts'\nimport type { b } from './b.ts'"),
    ]
    const ofThree = ['src/a.ts', 'src/b.ts', 'src/c.ts', 'src/a.ts']
    assert.deepEqual(findImportCycles(withoutTypeImports(files)), [ofThree])
    assert.deepEqual(findImportCycles(files), [ofThree, ['src/b.ts', 'src/c.ts', 'src/b.ts']])
    assert.deepEqual(findImportCycles(files.slice(0, 2)), [])
  })

  test('finds a long file without a reason and a small file with one importer', () => {
    const long = 'const a = 1\n'.repeat(401)
    const files = [
      parseSource('src/a.ts', `// Long, because it is a table.\n${long}`),
      parseSource('src/b.ts', `import type { c } from './c.ts'\nimport './d.ts'\n// Long.\n${long}`),
      parseSource('src/c.ts', "import './d.ts'"),
      parseSource('src/d.ts', ''),
    ]
    assert.deepEqual(longFilesWithoutReason(files), ['src/b.ts: 404 lines'])
    assert.deepEqual(smallFilesOfOneImporter(files), ['src/c.ts (1 lines) → src/b.ts'])
    assert.deepEqual([...filesPerFolder(files)], [['src', 4]])
  })
})

/** `src/http/edge.ts` → `http`, `src/log.ts` → `log`. */
function roomOf(path: string): string {
  const [, room = ''] = path.split('/')
  return room.replace(/\.ts$/, '')
}

function isDemo(path: string): boolean {
  return roomOf(path) === 'demo' || path === 'src/cli/demo.ts'
}

/** The package of an import: `@scope/name/deep` → `@scope/name`; undefined for our own files and built-ins. */
function packageOf({ specifier }: SourceImport): string | undefined {
  if (specifier.startsWith('.') || specifier.startsWith('node:')) return undefined
  const [first, second] = specifier.split('/')
  return first?.startsWith('@') ? `${first}/${second}` : first
}

function eachImport(
  files: readonly SourceFile[],
  judge: (source: SourceFile, one: SourceImport) => string | undefined,
): string[] {
  return files.flatMap((source) =>
    source.imports.flatMap((one) => {
      const verdict = judge(source, one)
      return verdict === undefined ? [] : `${source.path}:${one.line}: ${verdict}`
    }),
  )
}

function eachLine(files: readonly SourceFile[], pattern: RegExp): string[] {
  return files.flatMap(({ path, code }) =>
    code.flatMap((line, index) => (pattern.test(line) ? `${path}:${index + 1}: ${line.trim()}` : [])),
  )
}

function listed(allowed: { values: string[]; types: string[] } | undefined): string {
  const values = allowed?.values ?? []
  const types = (allowed?.types ?? []).map((room) => `types of ${room}`)
  return [...values, ...types].join(', ') || 'nothing of ours'
}

function circlesOf(files: readonly SourceFile[]): string[] {
  return findImportCycles(files).map((cycle) => cycle.join(' → '))
}

function fail(advice: string, found: readonly string[]): void {
  assert.ok(found.length === 0, `${advice}:\n  ${found.join('\n  ')}`)
}
