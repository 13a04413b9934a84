/**
 * Loaded into a Cloakroom process before its program: at SIGUSR2 it says on standard error how many entries the maps and
 * sets hold that each file of ours has made, and that still live.
 */
type Collection = { readonly size: number }

const made: { readonly file: string; readonly held: WeakRef<Collection> }[] = []

/** The file of ours whose code asked for it; undefined when it was a library's. */
function callersFile(): string | undefined {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 3
  // After the message, this function and the trap.
  const caller = (new Error().stack ?? '').split('\n')[3] ?? ''
  Error.stackTraceLimit = stackTraceLimit
  return /(src\/[\w/-]+\.ts)/.exec(caller)?.[1]
}

/** No subclass: libraries look at the prototype of Map itself. */
function noting<T extends MapConstructor | SetConstructor>(kind: T): T {
  return new Proxy(kind, {
    construct(target, values, newTarget) {
      const collection: Collection = Reflect.construct(target, values, newTarget)
      const file = callersFile()
      if (file) made.push({ file, held: new WeakRef(collection) })
      return collection
    },
  })
}
globalThis.Map = noting(Map)
globalThis.Set = noting(Set)

process.on('SIGUSR2', () => {
  const entries: Record<string, number> = {}
  for (const { file, held } of made) entries[file] = (entries[file] ?? 0) + (held.deref()?.size ?? 0)
  process.stderr.write(`${JSON.stringify({ entries })}\n`)
})
