import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'

/** One import or re-export of a source file. */
export type SourceImport = {
  /** As written: a relative path, a package or `node:` name. */
  readonly specifier: string
  readonly line: number
  /** `import type` / `export type`: gone at run time. */
  readonly isType: boolean
  /** `import('…')`, loaded when it is reached. */
  readonly isDynamic: boolean
  /** For relative ones: path below the root, e.g. `src/errors.ts`. */
  readonly file: string | undefined
}

/** One TypeScript file. */
export type SourceFile = {
  /** Path below the root with forward slashes, e.g. `src/http/edge.ts`. */
  readonly path: string
  readonly lines: readonly string[]
  /** The lines with comments blanked out. */
  readonly code: readonly string[]
  readonly imports: readonly SourceImport[]
}

/** The root of the checkout. */
export const ROOT = fileURLToPath(new URL('../../..', import.meta.url))

/** Every `.ts` file below a folder of the root, with its imports. */
export function readSources(folder: string): SourceFile[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => `${folder}/${name.split(sep).join('/')}`)
    .sort()
    .map((path) => parseSource(path, readFileSync(join(ROOT, path), 'utf8')))
}

/** Reads a file's imports from its text. House formatting puts static imports first and at the start of a line. */
export function parseSource(path: string, text: string): SourceFile {
  const code = withoutComments(text)
  return {
    path,
    lines: text.replace(/\n$/, '').split('\n'),
    code: code.split('\n'),
    imports: [...staticImports(code), ...dynamicImports(code)].map((found) => ({
      ...found,
      file: found.specifier.startsWith('.') ? resolved(path, found.specifier) : undefined,
    })),
  }
}

const STATIC = /^(?:import|export)\s+(type\s+)?(?:[\w*\s{},$]+?\s+from\s+)?['"]([^'"]+)['"]/gm
const DYNAMIC = /\bimport\(\s*['"]([^'"]+)['"]\s*\)(\.[A-Z])?/g

function staticImports(code: string) {
  return [...code.matchAll(STATIC)]
    .filter((match) => !isInTemplate(code, match.index))
    .map((match) => ({
      specifier: match[2] ?? '',
      line: lineAt(code, match.index),
      isType: match[1] !== undefined,
      isDynamic: false,
    }))
}

function dynamicImports(code: string) {
  return [...code.matchAll(DYNAMIC)].map((match) => ({
    specifier: match[1] ?? '',
    line: lineAt(code, match.index),
    isType: match[2] !== undefined || /typeof\s+$/.test(code.slice(0, match.index)),
    isDynamic: true,
  }))
}

/** Text of pages and scripts that stands in a template literal is not ours to judge. */
function isInTemplate(code: string, index: number): boolean {
  return (code.slice(0, index).match(/(?<!\\)`/g) ?? []).length % 2 === 1
}

/** Blanks out comments and keeps every line where it is; a `//` inside a string stays, because no blank stands before it. */
function withoutComments(text: string): string {
  return text
    .replace(/(^|\s)\/\*[\s\S]*?\*\//g, (comment) => comment.replace(/[^\n]/g, ' '))
    .replace(/(^|\s)\/\/.*$/gm, '$1')
}

function resolved(from: string, specifier: string): string {
  return relative(ROOT, join(ROOT, dirname(from), specifier))
    .split(sep)
    .join('/')
}

function lineAt(text: string, index: number): number {
  return text.slice(0, index).split('\n').length
}
