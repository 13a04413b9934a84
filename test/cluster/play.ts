import { cpus, loadavg } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { CHANGES, type Change } from './changes.ts'
import { type Crowd, startCrowd, type Tally } from './crowd.ts'
import { dryRun } from './dry-run.ts'
import { startIngress } from './ingress.ts'
import { APP, type Installation, ISSUER, install, NAMESPACE, RELEASE } from './installation.ts'
import { kubectl, must, run } from './kube.ts'
import type { PartsCounters } from './parts.ts'

// What runs inside of the cluster that lab/run.sh has started: main.ts starts both.

/** What main.ts passes on, as JSON. */
export type PlayOptions = {
  readonly sessions: number
  /** Of the names of changes that are played; all when it is empty. */
  readonly only: readonly string[]
  readonly onlyDryRun: boolean
}

/** One row of the table. */
type Row = {
  readonly name: string
  readonly seen: string
  readonly tally: Tally
  /** What the proxy's second try covered up, by error code. */
  readonly failedAttempts: Record<string, number>
  readonly refreshes: number
  readonly reuseAlarms: number
  readonly seconds: number
  readonly failures: readonly string[]
}

/** After a change: for what it left behind to be seen, such as a session that does not survive its next renewal. */
const AFTERWARDS_MS = 4_000

async function main(): Promise<number> {
  const { sessions, only, onlyDryRun }: PlayOptions = JSON.parse(String(process.argv[2]))
  const problems = await dryRun()
  if (onlyDryRun) return report(problems)
  console.log('installing …')
  const installation = await install()
  const doctor = await run('helm', ['test', RELEASE, '-n', NAMESPACE, '--logs'])
  if (doctor.code !== 0) problems.push(`helm test: ${doctor.stderr}${doctor.stdout}`)
  console.log(`helm test: ${/\d+ FAIL, .*/.exec(doctor.stdout)?.[0] ?? 'no verdict'}`)
  const ingress = await startIngress(NAMESPACE, RELEASE)
  while (ingress.addresses().length < 3) await delay(100)
  console.log(`${sessions} users sign in …`)
  const crowd = await startCrowd({
    ...{ sessions, origin: APP, url: ingress.url },
    provider: [new URL(ISSUER).origin, installation.providerUrl],
  })
  const rows: Row[] = []
  const isChosen = ({ name }: Change) => only.length === 0 || only.some((text) => name.includes(text))
  for (const change of CHANGES.filter(isChosen)) {
    console.log(`${change.name} …`)
    const row = await play(change, { installation, crowd, failedAttempts: ingress.failedAttempts })
    rows.push(row)
    console.log(lineOf(row))
    for (const failure of row.failures) console.log(`FAILED: ${failure}`)
    problems.push(...row.failures.map((failure) => `${row.name}: ${failure}`))
  }
  await crowd.stop()
  ingress.close()
  console.log(`\n${tableOf(rows)}\n\n${await whereItWas()}`)
  return report(problems)
}

/** Versions and machine, without which a table says little. */
async function whereItWas(): Promise<string> {
  const info = ['get', 'node', 'node1', '-o', 'jsonpath={.status.nodeInfo}']
  const { kubeletVersion, containerRuntimeVersion, kernelVersion } = JSON.parse(await must('kubectl', info))
  const helm = (await must('helm', ['version', '--short'])).trim()
  const machine = `${cpus().length} × ${cpus()[0]?.model}, run queue ${loadavg()[0]?.toFixed(0)}`
  const versions = `Kubernetes ${kubeletVersion}, ${containerRuntimeVersion}, Linux ${kernelVersion}, helm ${helm}`
  return `${new Date().toISOString().slice(0, 10)}, ${versions}, ${machine}`
}

function report(problems: readonly string[]): number {
  for (const problem of problems) console.log(`FAILED: ${problem}`)
  console.log(problems.length === 0 ? 'all as it must be' : `${problems.length} failures`)
  return problems.length === 0 ? 0 : 1
}

type Scene = {
  readonly installation: Installation
  readonly crowd: Crowd
  readonly failedAttempts: Readonly<Record<string, number>>
}

async function play(change: Change, { installation, crowd, failedAttempts }: Scene): Promise<Row> {
  const counted = await installation.counters()
  const attempted = { ...failedAttempts }
  const tally = crowd.begin()
  const began = performance.now()
  let seen = ''
  const failures: string[] = []
  try {
    seen = await change.happen(installation)
  } catch (error) {
    seen = 'did not come to its end'
    failures.push(`${error instanceof Error ? error.message : error}\n${await whatPodsSay()}`)
  }
  const seconds = (performance.now() - began) / 1000
  await delay(AFTERWARDS_MS)
  const now = await installation.counters()
  return {
    ...{ name: change.name, seen, tally, seconds },
    failedAttempts: difference(failedAttempts, attempted),
    refreshes: now.refreshes - counted.refreshes,
    reuseAlarms: now.reuseAlarms - counted.reuseAlarms,
    failures: [...failures, ...failuresOf(change, { tally, counted, now })],
  }
}

type Counted = { readonly tally: Tally; readonly counted: PartsCounters; readonly now: PartsCounters }

function failuresOf(change: Change, { tally, counted, now }: Counted): string[] {
  const { failed, lost, spuriousSignOuts, cookiesTouched } = tally
  const others = Object.entries(failed).filter(([key]) => !change.allowed?.includes(key))
  return [
    ...others.map(([key, times]) => `${times} answers ${key}`),
    ...(lost > 0 && !change.mayLose ? [`${lost} sessions were lost`] : []),
    ...(spuriousSignOuts > 0 ? [`${spuriousSignOuts} answers 401 to sessions that exist`] : []),
    ...(cookiesTouched > 0 ? [`${cookiesTouched} refusals set a cookie`] : []),
    ...(now.reuseAlarms > counted.reuseAlarms && !change.mayLose ? ['a refresh token came twice'] : []),
  ]
}

async function whatPodsSay(): Promise<string> {
  const pods = await kubectl(NAMESPACE, 'get', 'pods', '-o', 'wide')
  const log = await kubectl(
    NAMESPACE,
    'logs',
    '-l',
    'app.kubernetes.io/name=cloakroom',
    '--tail=5',
    '--prefix',
  )
  return pods + log
}

function difference(
  now: Readonly<Record<string, number>>,
  before: Readonly<Record<string, number>>,
): Record<string, number> {
  const counts = Object.entries(now).map(([key, times]) => [key, times - (before[key] ?? 0)] as const)
  return Object.fromEntries(counts.filter(([, times]) => times > 0))
}

const HEAD = [
  ...['what happens', 'seconds', 'requests', 'failed', 'failed without the second try', 'longest gap'],
  ...['sessions lost', 'spurious sign-outs', 'renewals', 'reuse alarms', 'seen'],
]

function tableOf(rows: readonly Row[]): string {
  return [`| ${HEAD.join(' | ')} |`, `|${' --- |'.repeat(HEAD.length)}`, ...rows.map(lineOf)].join('\n')
}

function lineOf({ name, tally, failedAttempts, seconds, refreshes, reuseAlarms, seen }: Row): string {
  const cells = [
    ...[name, seconds.toFixed(0), tally.requests, countsOf(tally.failed), countsOf(failedAttempts)],
    ...[`${(tally.longestGapMs / 1000).toFixed(1)} s`, tally.lost, tally.spuriousSignOuts],
    ...[refreshes, reuseAlarms, seen],
  ]
  return `| ${cells.join(' | ')} |`
}

function countsOf(counts: Readonly<Record<string, number>>): string {
  const texts = Object.entries(counts).map(([key, times]) => `${times} × ${key}`)
  return texts.join(', ') || '0'
}

process.exitCode = await main().catch((error) => {
  console.error(error)
  return 1
})
process.exit()
