/*
 * `npm test`: every test file, or those that its arguments name.
 *
 * A process for each file costs more than most files do: it loads the service, and compiles it anew. Files therefore share
 * processes, each file as a suite of its own name; only those that measure their process, or change it, have one to
 * themselves. What a crash or a hang of a shared process leaves untold is run again, each file in a process of its own.
 * `node --test FILE` runs one file as it is.
 */
import { globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { run } from 'node:test'
import { spec } from 'node:test/reporters'

const ROOT = resolve(import.meta.dirname, '..')
/** Below the packages, so that the files made here are found by nothing else. */
const GROUPS = join(ROOT, `node_modules/.cache/test-groups-${process.pid}`)
/** More than two processors, because most tests also wait. */
const AT_ONCE = 4
const TEST_TIMEOUT_MS = 120_000
const PROCESS_TIMEOUT_MS = 600_000

/**
 * Folders whose files share processes, and how many; the first that a file lies in is the one. Those of `attack/refresh`
 * share their Cloakroom processes, too. (Of `kit`, samples for the test of this runner.)
 */
const SHARED: Readonly<Record<string, number>> = {
  'attack/refresh': 1,
  attack: 2,
  flow: 4,
  wire: 1,
  conformance: 1,
  contract: 1,
  unit: 4,
  kit: 1,
}

/** Files of these folders that need a process of their own, because they measure it, change it, fill it, or take the time when they are loaded. */
const ALONE = [
  'attack/refresh/memory.test.ts',
  'contract/rate-limits.test.ts',
  'unit/async/expiring-map.test.ts',
  'unit/oidc/dpop.test.ts',
  'unit/oidc/token-endpoint/limiter-queue.test.ts',
  'unit/oidc/token-endpoint/send-watch.test.ts',
  'unit/oidc/token-endpoint/token-requests.test.ts',
  'unit/proxy/access-token.test.ts',
  'unit/proxy/upstream/undocumented.test.ts',
  'wire/differential.test.ts',
  'wire/fuzz.test.ts',
  'wire/websocket-echo.test.ts',
  'wire/websocket-resets.test.ts',
]

/** The longest, in the order in which they are started, so that none of them is left alone at the end. */
const FIRST = [
  'wire/websocket-resets.test.ts',
  'chaos/chaos.test.ts',
  'browser/one-browser.test.ts',
  'endurance/resets.test.ts',
  'endurance/transfer.test.ts',
  'attack/refresh/memory.test.ts',
  'browser/https.test.ts',
  'providers/oidc-provider.test.ts',
]

/**
 * Ends a shared process whose event loop stands still, because a test that loops can be ended by nothing else: the runner
 * sends SIGTERM, for which the process has a listener.
 */
const WATCHDOG = `
const { Worker } = require('node:worker_threads')
const beats = new Int32Array(new SharedArrayBuffer(4))
setInterval(() => Atomics.add(beats, 0, 1), 1_000).unref()
new Worker(\`
const { workerData: beats } = require('node:worker_threads')
let [last, idle] = [0, 0]
setInterval(() => {
  const now = Atomics.load(beats, 0)
  idle = now === last ? idle + 1 : 0
  last = now
  if (idle > ${TEST_TIMEOUT_MS / 1_000}) process.kill(process.pid, 'SIGKILL')
}, 1_000)
\`, { eval: true, workerData: beats }).unref()
`

/** What one process runs. */
type Unit = { readonly file: string; readonly members: readonly string[] }

async function main(wanted: readonly string[]): Promise<void> {
  mkdirSync(GROUPS, { recursive: true })
  process.once('exit', () => rmSync(GROUPS, { recursive: true, force: true }))
  const files = globSync(wanted.length > 0 ? wanted : 'test/**/*.test.ts', { cwd: ROOT }).sort()
  const untold = await runUnits(plan(files.map((file) => relative('test', file))))
  if (untold.length === 0) return
  process.exitCode = 1
  console.log(
    `\nA process ended or stood still. What it left is run again, each file by itself:\n${listed(untold)}\n`,
  )
  const guilty = await runUnits(untold.map((file) => shared(file.replaceAll('/', '-'), [file])))
  if (guilty.length > 0)
    console.log(`\n✖ The process of these files ended or stood still:\n${listed(guilty)}`)
}

/** The longest first, then those that share a process, then the rest. */
function plan(files: readonly string[]): Unit[] {
  const folderOf = (file: string) => Object.keys(SHARED).find((folder) => file.startsWith(`${folder}/`))
  const shares = (file: string) =>
    folderOf(file) !== undefined && !ALONE.includes(file) && !waitsOutside(file)
  const groups = Object.entries(SHARED).flatMap(([folder, count]) =>
    dealt(
      folder.replaceAll('/', '-'),
      count,
      files.filter((file) => folderOf(file) === folder && shares(file)),
    ),
  )
  const single = files.filter((file) => !shares(file))
  const first = FIRST.filter((file) => single.includes(file))
  const rest = single.filter((file) => !first.includes(file))
  return [...first.map(alone), ...groups, ...rest.map(alone)]
}

/** Whether a file may have an `await` outside of functions: `require` loads none that has. */
function waitsOutside(file: string): boolean {
  return /^(?=\S)(?:(?!\basync\b).)*\bawait /m.test(readFileSync(join(ROOT, 'test', file), 'utf8'))
}

function alone(file: string): Unit {
  return { file: join(ROOT, 'test', file), members: [file] }
}

function dealt(folder: string, count: number, files: readonly string[]): Unit[] {
  const hands = Array.from({ length: count }, (_, at) => files.filter((_, index) => index % count === at))
  return hands.filter((hand) => hand.length > 0).map((hand, at) => shared(`${folder}-${at + 1}`, hand))
}

/** A module with a suite for each file. They are loaded by `require`: after an `import`, tests do not find their suite. */
function shared(name: string, members: readonly string[]): Unit {
  const file = join(GROUPS, `${name}.cjs`)
  const suites = members.map((member) => {
    const [title, path] = [`test/${member}`, join(ROOT, 'test', member)].map((text) => JSON.stringify(text))
    return `describe(${title}, () => void require(${path}))`
  })
  writeFileSync(file, [`const { describe } = require('node:test')`, WATCHDOG, ...suites, ''].join('\n'))
  return { file, members }
}

/** Runs them and reports. Returns the files that a process left untold, because it ended before they did. */
async function runUnits(units: readonly Unit[]): Promise<string[]> {
  const told = new Set<string>()
  const broken = new Set<string>()
  const stream = run({
    ...{ cwd: ROOT, files: units.map(({ file }) => file), concurrency: AT_ONCE, timeout: PROCESS_TIMEOUT_MS },
    execArgv: [`--test-timeout=${TEST_TIMEOUT_MS}`],
  })
  stream.on('test:complete', ({ file, name, nesting, details }) => {
    if (nesting > 0) return
    told.add(name)
    if (name === file && details.error) broken.add(file)
  })
  stream.on('test:summary', ({ file, success }) => {
    if (file === undefined && !success) process.exitCode = 1
  })
  for await (const text of stream.compose(new spec())) process.stdout.write(text)
  const left = units.filter(({ file }) => broken.has(file) && file.startsWith(GROUPS))
  return left.flatMap(({ members }) => members).filter((member) => !told.has(`test/${member}`))
}

function listed(files: readonly string[]): string {
  return files.map((file) => `  test/${file}`).join('\n')
}

await main(process.argv.slice(2))
