import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** What V8 writes with `--cpu-prof`. Times in µs, by the monotonic clock. */
export type CpuProfile = {
  readonly nodes: readonly ProfileNode[]
  readonly startTime: number
  /** The id of the node that was running at each sample. */
  readonly samples: readonly number[]
  /** Time since the sample before, or since the start. */
  readonly timeDeltas: readonly number[]
}

type ProfileNode = {
  readonly id: number
  /** Lines count from 0. */
  readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber?: number }
  readonly children?: readonly number[]
}

/** A stretch of time, in µs by the monotonic clock. */
export type Span = { readonly from: number; readonly to: number }

/** µs of self time by part, within some spans. Idle time is left out. */
export function timesOf({ nodes, startTime, samples, timeDeltas }: CpuProfile, spans: readonly Span[]) {
  const partOf = partsOfNodes(nodes)
  const times = new Map<string, number>()
  let at = startTime
  for (const [n, id] of samples.entries()) {
    at += timeDeltas[n]!
    const part = partOf.get(id)
    // A sample stands for the time until the next one.
    const lasts = timeDeltas[n + 1] ?? 0
    if (part === undefined || !spans.some(({ from, to }) => at >= from && at < to)) continue
    times.set(part, (times.get(part) ?? 0) + lasts)
  }
  return times
}

/** Parts of V8's own frames; undefined for those that are no work. */
const OF_V8: Readonly<Record<string, string | undefined>> = {
  '(garbage collector)': 'V8: garbage collection',
  '(program)': 'native code between callbacks: reads, epoll, HTTP parser',
  '(root)': undefined,
  '(idle)': undefined,
}

/** Functions of Node in C++ that end in a system call. */
const WRITES = /^(writev|writeBuffer|write(Latin1|Utf8|Ascii|Ucs2)String|shutdown)$/

function partsOfNodes(nodes: readonly ProfileNode[]): Map<number, string> {
  const parentOf = new Map<number, ProfileNode>()
  for (const node of nodes) for (const child of node.children ?? []) parentOf.set(child, node)
  const parts = new Map<number, string>()
  for (const node of nodes) {
    if (Object.hasOwn(OF_V8, node.callFrame.functionName)) {
      const part = OF_V8[node.callFrame.functionName]
      if (part !== undefined) parts.set(node.id, part)
      continue
    }
    if (!node.callFrame.url && WRITES.test(node.callFrame.functionName)) {
      parts.set(node.id, 'native code: writes to sockets')
      continue
    }
    // A builtin counts as a part of its caller.
    let holder: ProfileNode | undefined = node
    while (holder && !holder.callFrame.url) holder = parentOf.get(holder.id)
    parts.set(node.id, holder ? partOfFile(moduleOf(holder.callFrame)) : 'V8: everything else')
  }
  return parts
}

/** The first lines of the modules in each file. */
const modulesIn = new Map<string, readonly { readonly line: number; readonly path: string }[]>()

/** A file into which a build has joined modules names each of them in a comment before it. */
function moduleOf({ url, lineNumber = 0 }: ProfileNode['callFrame']): string {
  if (!url.startsWith('file:')) return url
  let modules = modulesIn.get(url)
  if (!modules) {
    const path = fileURLToPath(url)
    const lines = existsSync(path) ? readFileSync(path, 'utf8').split('\n') : []
    modules = lines.flatMap((text, line) => {
      const [, path] = /^\/\/ ((?:node_modules|dist)\/\S+)$/.exec(text) ?? []
      return path ? [{ line, path: `/${path}` }] : []
    })
    modulesIn.set(url, modules)
  }
  return modules.findLast(({ line }) => line <= lineNumber)?.path ?? url
}

/** The part of a JavaScript file: the first pattern that matches. `$1` is the group of the pattern. */
const FILES: readonly (readonly [pattern: RegExp, part: string])[] = [
  [/^node:_http_outgoing/, 'node:http: answers'],
  [/^node:(_http_|internal\/http)/, 'node:http: requests'],
  [/^node:(net|internal\/(net|stream_base_commons|js_stream_socket))$/, 'node:net: sockets'],
  [/^node:(stream|_stream|internal\/(streams|webstreams))/, 'node: streams'],
  [/^node:events/, 'node: events'],
  [/^node:(timers|internal\/(timers|priority_queue|linkedlist))/, 'node: timers'],
  [/^node:(async_hooks|internal\/(process|async|promise|util\/async))/, 'node: ticks and async context'],
  [/^node:(internal\/)?crypto/, 'node:crypto'],
  [/^node:/, 'node: everything else'],
  [/\/node_modules\/(?:express|router|path-to-regexp|parseurl|finalhandler)\//, 'Express'],
  [/\/node_modules\/(?:pino|sonic-boom|thread-stream|fast-redact|[^/]*stringify)\//, 'pino'],
  [/\/node_modules\/(?:express-session|cookie|cookie-signature|on-headers)\//, 'express-session'],
  [/\/node_modules\/((?:@[^/]+\/)?[^/]+)\//, '$1'],
  [/\/(?:dist|src)\/(?:([^/]+\/[^/]+)\/)[^/]+$/, 'src/$1'],
  [/\/(?:dist|src)\/([^/]+)\/[^/]+$/, 'src/$1'],
  [/\/(?:dist|src)\/([^/]+)\.[jt]s$/, 'src/$1.ts'],
  [/\/contenders\/bare-proxy\.ts$/, 'the bare proxy itself'],
]

function partOfFile(url: string): string {
  for (const [pattern, part] of FILES) {
    const found = pattern.exec(url)
    if (found) return part.replace('$1', found[1] ?? '')
  }
  return 'V8: everything else'
}
