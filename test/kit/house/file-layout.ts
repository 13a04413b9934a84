import { dirname } from 'node:path'
import type { SourceFile } from './source-files.ts'

/** The most files in a folder, so that its listing reads as a table of contents. */
export const FOLDER_FILES = 12
/** A longer file says in its first comment why it is one. */
export const LONG_LINES = 400
/** A shorter file that one other file imports belongs in there. */
export const SMALL_LINES = 40

/** Number of files in each folder, its own folders aside. */
export function filesPerFolder(files: readonly SourceFile[]): Map<string, number> {
  const counts = new Map<string, number>()
  for (const { path } of files) counts.set(dirname(path), (counts.get(dirname(path)) ?? 0) + 1)
  return counts
}

/** Files of more than `LONG_LINES` lines whose first comment has no "because". */
export function longFilesWithoutReason(files: readonly SourceFile[]): string[] {
  return files
    .filter(({ lines }) => lines.length > LONG_LINES && !/\bbecause\b/i.test(firstComment(lines)))
    .map(({ path, lines }) => `${path}: ${lines.length} lines`)
}

/** Small files of one importer that stand for themselves all the same. */
const ON_THEIR_OWN: ReadonlySet<string> = new Set([
  // One file per command: `main.ts` loads only the one that is named.
  ...['src/cli/keygen.ts', 'src/cli/schema.ts'],
  // A table that whoever adds a key to the configuration looks for by its name.
  'src/config/restart-fields.ts',
])

/** Files of fewer than `SMALL_LINES` lines that a single file imports, types included. */
export function smallFilesOfOneImporter(files: readonly SourceFile[]): string[] {
  const importers = new Map<string, Set<string>>()
  for (const { path, imports } of files)
    for (const { file } of imports)
      if (file !== undefined) importers.set(file, (importers.get(file) ?? new Set()).add(path))
  return files.flatMap(({ path, lines }) => {
    const [importer, ...others] = importers.get(path) ?? []
    const isSmall =
      lines.length < SMALL_LINES && importer !== undefined && others.length === 0 && !ON_THEIR_OWN.has(path)
    return isSmall ? [`${path} (${lines.length} lines) → ${importer}`] : []
  })
}

function firstComment(lines: readonly string[]): string {
  return /\/\*[\s\S]*?\*\/|(^[ \t]*\/\/.*\n?)+/m.exec(lines.join('\n'))?.[0] ?? ''
}
