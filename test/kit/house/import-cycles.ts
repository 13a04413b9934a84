import type { SourceFile } from './source-files.ts'

/**
 * The import circles, each as the path once around from its first file by name. Of all circles through a file the
 * shortest one is named. Type imports count.
 */
export function findImportCycles(files: readonly SourceFile[]): string[][] {
  const targets = new Map(
    files.map(({ path, imports }) => [path, [...new Set(imports.flatMap(({ file }) => file ?? []))].sort()]),
  )
  const circles = new Map<string, string[]>()
  for (const { path } of files) {
    const circle = shortestWayBack(targets, path)
    if (circle) circles.set(circle.join(), circle)
  }
  return [...circles.values()]
}

/** `import type` taken out: what is left is needed at run time. */
export function withoutTypeImports(files: readonly SourceFile[]): SourceFile[] {
  return files.map((file) => ({ ...file, imports: file.imports.filter(({ isType }) => !isType) }))
}

function shortestWayBack(targets: ReadonlyMap<string, string[]>, start: string): string[] | undefined {
  const cameFrom = new Map<string, string>()
  const queue = [start]
  for (const path of queue) {
    for (const target of targets.get(path) ?? []) {
      if (target === start) return closedCircle(wayTo(path, cameFrom))
      if (cameFrom.has(target)) continue
      cameFrom.set(target, path)
      queue.push(target)
    }
  }
  return undefined
}

function wayTo(path: string, cameFrom: ReadonlyMap<string, string>): string[] {
  const way = [path]
  for (let before = cameFrom.get(path); before !== undefined; before = cameFrom.get(before))
    way.unshift(before)
  return way
}

/** The same circle whichever of its files it was found from. */
function closedCircle(way: readonly string[]): string[] {
  const first = [...way].sort()[0]!
  const at = way.indexOf(first)
  return [...way.slice(at), ...way.slice(0, at), first]
}
