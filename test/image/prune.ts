/**
 * Deletes from a built tree what no command can load: `node --experimental-import-meta-resolve prune.ts DIR`. From every
 * module of DIR/dist it follows `import` and `require` as Node.js resolves them, and of DIR/node_modules it keeps the files
 * that it reaches and their package.json; type declarations, source maps, tests, documents and the other one of two module
 * formats go. Of a package that went into the bundle (DIR/dist/bundled.json) its package.json stays, so that what lists
 * the packages of the image finds it. Licence texts are put together in DIR/THIRD-PARTY-NOTICES first.
 *
 * @throws when a reached file loads modules by a computed name and is not one of `READ_AND_JUDGED`: the build ends, because
 * only a person can say what such a file needs.
 */
import {
  existsSync,
  globSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createRequire, isBuiltin } from 'node:module'
import { dirname, join, relative, sep } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { noticesOf, packagesOf } from './notices.ts'

/** Files that load modules by a computed name, with what a person found that they load. */
const READ_AND_JUDGED: Readonly<Record<string, string>> = {
  'node_modules/express/lib/view.js':
    'template engines, by the names of files that are rendered: there are none',
  'node_modules/pino/lib/transport.js': 'log transports: the log is written by the process itself',
  'node_modules/real-require/src/index.js': 'modules of log transports, in their worker threads',
}

/** What one file names: by `require` or `import`, as a path beside itself, or by a name that is computed. */
type Names = {
  readonly required: readonly string[]
  readonly imported: readonly string[]
  readonly beside: readonly string[]
  readonly isComputed: boolean
}

/** Comments go first, so that an example in one is not taken for code; a name too many costs a file, one too few an error. */
export function namesIn(source: string): Names {
  const code = source.replace(/\/\*[\s\S]*?\*\//g, ' ').replace(/(^|[\s;{}])\/\/.*$/gm, '$1')
  const all = (pattern: RegExp) => [...code.matchAll(pattern)].map(([, , name = '']) => name)
  return {
    required: all(/\b(?:require(?:\.resolve)?|createRequire\([^)]*\))\s*\(\s*(['"`])([^'"`$]+)\1\s*\)/g),
    imported: [
      ...all(/\bimport\s*\(\s*(['"`])([^'"`$]+)\1/g),
      ...all(/\b(?:from|import)\s*(['"])([^'"]+)\1/g),
    ],
    beside: [
      ...all(/\b__dirname\s*,\s*(['"`])([^'"`$]+)\1/g),
      ...all(/\bnew URL\(\s*(['"`])([^'"`$]+)\1\s*,\s*import\.meta\.url/g),
    ],
    isComputed:
      /\b(?:require(?:\.resolve)?|import)\s*\(\s*(?!['")\s]|`[^`$]*`)/.test(code) ||
      /\bcreateRequire\([^)]*\)(?!\s*\(\s*['"`])/.test(code),
  }
}

/** The files of one file's names that are there. */
function filesNamedIn(file: string, names: Names): string[] {
  const url = pathToFileURL(file).href
  const require = createRequire(url)
  const found = [
    ...names.required.map((name) => attempt(() => require.resolve(name))),
    ...names.imported.map((name) => attempt(() => fileURLToPath(import.meta.resolve(name, url)))),
    ...names.beside.map((name) => join(dirname(file), name)),
  ]
  return found.filter(
    (path) => path !== undefined && !isBuiltin(path) && statSync(path, { throwIfNoEntry: false })?.isFile(),
  ) as string[]
}

/** A name that does not resolve belongs to an optional dependency, or stands in a string. */
function attempt(resolve: () => string): string | undefined {
  try {
    return resolve()
  } catch {
    return undefined
  }
}

/** Every file that is reached from these, and those of them that load by computed names. */
export function reach(roots: readonly string[]): {
  reached: ReadonlySet<string>
  computed: readonly string[]
} {
  const reached = new Set(roots)
  const computed: string[] = []
  for (const file of reached) {
    if (!/\.[cm]?js$/.test(file)) continue
    const names = namesIn(readFileSync(file, 'utf8'))
    if (names.isComputed) computed.push(file)
    for (const named of filesNamedIn(file, names)) reached.add(named)
  }
  return { reached, computed }
}

/** The package.json files from a file's folder up to its package's: they say what format it has, and its version. */
function manifestsOf(file: string): string[] {
  const folder = dirname(file)
  if (folder.endsWith(`${sep}node_modules`) || !folder.includes('node_modules')) return []
  const manifest = join(folder, 'package.json')
  return [...(existsSync(manifest) ? [manifest] : []), ...manifestsOf(folder)]
}

/** @throws for files of packages that load modules by a computed name, when no person has judged what they load. */
export function requireRead(computed: readonly string[]): void {
  const unread = computed.filter((file) => !(file in READ_AND_JUDGED) && file.startsWith('node_modules'))
  if (unread.length > 0)
    throw new Error(`read what these load by computed names, and add them to prune.ts:\n${unread.join('\n')}`)
}

function prune(root: string): void {
  const path = (name: string) => join(root, name)
  const roots = globSync('dist/**/*.js', { cwd: root }).map(path)
  const { reached, computed } = reach(roots)
  requireRead(computed.map((file) => relative(root, file)))
  const modules = [...reached].filter((file) => file.includes('node_modules'))
  const list = path('dist/bundled.json')
  const bundled: string[] = existsSync(list) ? JSON.parse(readFileSync(list, 'utf8')) : []
  const kept = new Set([...modules, ...modules.flatMap(manifestsOf), ...bundled.map(path)])
  const manifests = [...kept].filter((file) => file.endsWith(`${sep}package.json`))
  writeFileSync(path('THIRD-PARTY-NOTICES'), noticesOf(packagesOf(manifests)))
  for (const entry of readdirSync(path('node_modules'), { recursive: true, withFileTypes: true })) {
    const file = join(entry.parentPath, entry.name)
    if (!entry.isDirectory() && !kept.has(file)) rmSync(file)
  }
  const notRun = ['dist/**/*.{d.ts,map}', 'dist/bundled.json', 'dist/THIRD-PARTY-NOTICES']
  for (const file of globSync(notRun, { cwd: root })) rmSync(path(file))
  removeEmpty(path('node_modules'))
}

function removeEmpty(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isDirectory()) removeEmpty(join(folder, entry.name))
  if (readdirSync(folder).length === 0) rmdirSync(folder)
}

if (import.meta.main) prune(process.argv[2]!)
