/**
 * The last step of a build joins its modules and packages into few files: `node bundle.ts DIR`. Loading nine hundred modules
 * one by one is most of a start. What a command, Redis, traces or a WebSocket need is a file of its own, loaded when it is used.
 *
 * Lines, names of functions and of files stay as they are, because the log names places by them: only modules are joined.
 * DIR/dist/main.js stays the entry. Modules with declarations, which are for users to import, stay where they are, and so do
 * files that are no modules, which are found from there. DIR/dist/bundled.json gets the manifests of the packages that went
 * into it, for prune.ts, and DIR/dist/THIRD-PARTY-NOTICES their licences.
 */
import { existsSync, globSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { join, relative, resolve, sep } from 'node:path'
import { build, type Metafile, type Plugin } from 'esbuild'
import { noticesOf, packagesOf } from './notices.ts'
import { namesIn, requireRead } from './prune.ts'

/** What is asked for and need not be there: a minifier for checkouts, and colours in the debug output of a library. */
const OPTIONAL: ReadonlySet<string> = new Set(['terser', 'supports-color'])

/** A module that CommonJS modules went into needs `require` for the modules of Node.js. */
const REQUIRE =
  "const require = globalThis.process.getBuiltinModule('node:module').createRequire(import.meta.url)"

/** @throws when a module is not found that is not one of `OPTIONAL`, or loads others by a computed name unread (`prune.ts`). */
export async function bundle(root: string): Promise<void> {
  const modules = globSync('dist/**/*.js.map', { cwd: root })
    .map((map) => map.slice(0, -'.map'.length))
    .filter((module) => !existsSync(join(root, module.replace(/js$/, 'd.ts'))))
  const { metafile, outputFiles } = await build({
    ...{ absWorkingDir: root, entryPoints: ['dist/main.js'], outdir: 'dist', write: false, metafile: true },
    ...{ bundle: true, splitting: true, format: 'esm', platform: 'node', target: 'node24' },
    // As Node.js resolves: esbuild by itself prefers what packages export for bundlers.
    conditions: [],
    ...{ legalComments: 'none', logLevel: 'silent', external: [...OPTIONAL], banner: { js: REQUIRE } },
    plugins: [ownPlace(join(root, 'dist'))],
  })
  const unknown = externalsOf(metafile).filter((name) => !OPTIONAL.has(name))
  if (unknown.length > 0) throw new Error(`these are not in the bundle: ${unknown.join(', ')}`)
  const inputs = Object.keys(metafile.inputs)
  requireRead(
    inputs.filter(
      (path) => /\.[cm]?js$/.test(path) && namesIn(readFileSync(join(root, path), 'utf8')).isComputed,
    ),
  )
  for (const module of modules) for (const file of [module, `${module}.map`]) rmSync(join(root, file))
  for (const { path, text } of outputFiles) writeFileSync(path, inAscii(withoutBuiltinImports(text)))
  removeEmpty(join(root, 'dist'))
  const manifests = manifestsIn(root, metafile)
  writeFileSync(join(root, 'dist/bundled.json'), JSON.stringify(manifests, null, 2))
  const packages = packagesOf(manifests.map((path) => join(root, path)))
  writeFileSync(join(root, 'dist/THIRD-PARTY-NOTICES'), noticesOf(packages))
}

/**
 * Replaces imports of Node.js's own modules by `getBuiltinModule`. An import reads every export of a module: for `node:http`
 * that loads the undici inside of Node.js, which takes 30 ms of a start and 3 MB.
 */
function withoutBuiltinImports(code: string): string {
  const imports = /^import (?:\* as )?([\w$]+)?,? ?(\{[^}]*\})? from "([^"]+)";$/gm
  return code.replace(imports, (all, whole, names, from) => {
    if (!isBuiltin(from)) return all
    const taken = [whole, names?.replaceAll(' as ', ': ')].filter((each) => each !== undefined)
    const module = `globalThis.process.getBuiltinModule("${from}")`
    return taken.map((each) => `const ${each} = ${module};`).join(' ')
  })
}

/** Escapes the characters beyond ASCII that esbuild leaves: a file with one takes two bytes a character in memory. */
function inAscii(code: string): string {
  return code.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** A module of ours finds its files beside itself. It is told where it was, because the file that it went into is elsewhere. */
function ownPlace(dist: string): Plugin {
  return {
    name: 'own-place',
    setup({ onLoad }) {
      onLoad({ filter: /\.js$/ }, ({ path }) => {
        if (!path.startsWith(dist + sep)) return undefined
        const code = readFileSync(path, 'utf8')
        if (!code.includes('import.meta.url')) return undefined
        const place = JSON.stringify(`./${relative(dist, path)}`)
        const own = `const ownUrl = new URL(${place}, import.meta.url).href;`
        return { contents: own + code.replaceAll('import.meta.url', 'ownUrl'), loader: 'js' }
      })
    },
  }
}

/** The modules that the bundle loads from elsewhere, without those of Node.js. */
function externalsOf({ outputs }: Metafile): string[] {
  const imports = Object.values(outputs).flatMap((output) => output.imports)
  const names = imports.filter(({ external, path }) => external && !isBuiltin(path)).map(({ path }) => path)
  return [...new Set(names)].sort()
}

/** The package.json files of the packages that went into a bundle. */
function manifestsIn(root: string, { inputs }: Metafile): string[] {
  const folders = Object.keys(inputs).map((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0])
  const manifests = folders.map((folder) => folder && join(folder, 'package.json'))
  return [...new Set(manifests)]
    .filter((path) => path !== undefined && existsSync(join(root, path)))
    .sort() as string[]
}

function removeEmpty(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isDirectory()) removeEmpty(join(folder, entry.name))
  if (readdirSync(folder).length === 0) rmdirSync(folder)
}

if (import.meta.main) await bundle(resolve(process.argv[2]!))
