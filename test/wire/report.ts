import { ALL_CASES } from './all-cases.ts'
import { probesOf, rowOf } from './http11probe.ts'
import { findFaults } from './judge.ts'
import { createRunner, type Observation } from './run-case.ts'
import { fillIn, type WireCase, worldOf } from './wire-case.ts'
import { startWorld, type World, type WorldName } from './world.ts'

/** Plays every row and tells what was sent, what came back and what arrived; `--json` as one object a line. */
async function main(): Promise<void> {
  const isJson = process.argv.includes('--json')
  const totals = { rows: 0, faulty: 0, arrived: 0 }
  if (!isJson) console.log(HEAD)
  for (const name of new Set(ALL_CASES.map(worldOf))) await playWorld(name, isJson, totals)
  if (!isJson) {
    console.log(
      `\n${totals.rows} rows, ${totals.arrived} requests arrived, ${totals.faulty} not as they must be.`,
    )
  }
  process.exitCode = totals.faulty === 0 ? 0 : 1
}

const HEAD = '| row | sent | answered | arrived | |\n|---|---|---|---|---|'

type Totals = { rows: number; faulty: number; arrived: number }

async function playWorld(name: WorldName, isJson: boolean, totals: Totals): Promise<void> {
  const world = await startWorld(name)
  const run = createRunner(world)
  try {
    for (const one of ALL_CASES.filter((each) => worldOf(each) === name)) {
      const line = await lineOf(world, fillIn(one, world.values), run)
      totals.rows += 1
      totals.faulty += line.faults.length === 0 ? 0 : 1
      totals.arrived += line.arrived.length
      console.log(isJson ? JSON.stringify(line) : asMarkdown(line))
    }
  } finally {
    await world.close()
  }
}

type Line = {
  readonly row: string
  readonly probes: readonly string[]
  readonly sent: string
  readonly answered: readonly string[]
  readonly connection: string
  readonly arrived: readonly string[]
  readonly abandoned: readonly string[]
  readonly faults: readonly string[]
}

async function lineOf(
  world: World,
  one: WireCase,
  run: (one: WireCase) => Promise<Observation>,
): Promise<Line> {
  const row = rowOf(one)
  const cover = (text: string) => withoutSecrets(world, text)
  const nothing = { answered: [], connection: 'unknown', arrived: [], abandoned: [] }
  try {
    const seen = await run(one)
    return {
      ...{ row, probes: probesOf(row), sent: cover(seen.sent), connection: seen.connection },
      answered: seen.received.answers.map(({ startLine, code }) =>
        code === undefined ? startLine : `${startLine} (${code})`,
      ),
      arrived: seen.requests.map(({ raw }) => cover(raw)),
      abandoned: seen.abandoned.map(cover),
      faults: findFaults(world, one, seen).map(cover),
    }
  } catch (error) {
    return { ...nothing, row, probes: probesOf(row), sent: '', faults: [cover(String(error))] }
  }
}

/** They are of a provider that lived for a moment; but a report is no place for what looks like a credential. */
function withoutSecrets(world: World, text: string): string {
  let covered = text
  for (const [index, secret] of world.secrets().entries()) {
    if (secret.length > 8) covered = covered.replaceAll(secret, `<secret ${index}>`)
  }
  return covered.replaceAll(/eyJ[\w.-]{20,}/g, '<token>')
}

function asMarkdown({ row, probes, sent, answered, connection, arrived, abandoned, faults }: Line): string {
  const cells = [
    [row, ...probes].join(' '),
    bytes(sent),
    `${answered.map((one) => `\`${one}\``).join('<br>') || 'nothing'}, ${connection}`,
    [...arrived.map(bytes), ...abandoned.map((one) => `${bytes(one)} (never whole)`)].join('<br>') || '–',
    faults.join('; '),
  ]
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
}

/** Bytes as text that shows each of them, cut where it is long. */
function bytes(text: string): string {
  const shown = JSON.stringify(text.length > 1200 ? `${text.slice(0, 1200)}…` : text).slice(1, -1)
  return `\`${shown.replaceAll('`', '\\u0060')}\``
}

await main()
