import { type FuzzCase, fuzzCases } from './fuzz.ts'
import { faultsOf } from './fuzz-judge.ts'
import { shrink } from './fuzz-shrink.ts'
import { type FuzzOutcome, type FuzzWorld, startFuzzWorld } from './fuzz-world.ts'

/** What a run found. */
export type Finding = {
  readonly number: number
  readonly faults: readonly string[]
  /** As small as it could cheaply be made. */
  readonly minimal: FuzzCase
  readonly minimalFaults: readonly string[]
  readonly outcome: FuzzOutcome
}

/** What a run did, for its report. */
export type FuzzTally = {
  cases: number
  /** Requests as strictly read, and at the upstream. */
  framed: number
  forwarded: number
  /** Connections by how the strict reading of their bytes ended. */
  readonly ends: Record<string, number>
  /** Answers by status and code. */
  readonly answers: Record<string, number>
  silent: number
}

export type FuzzRun = {
  readonly seed: number
  readonly count: number
  /** Findings of one kind that are shrunk; more are only counted. */
  readonly deadline?: number
  readonly onFinding?: (finding: Finding) => void
  readonly onCase?: (one: FuzzCase, outcome: FuzzOutcome) => void
  readonly tally?: FuzzTally
}

/** A world is left for a new one after so many cases, so that nothing piles up. */
const CASES_OF_ONE_WORLD = 5_000
/** How long a connection must say nothing for a second look. Milliseconds. */
const PATIENT_MS = 1_500
const MOST_FINDINGS = 25

export function newTally(): FuzzTally {
  return { cases: 0, framed: 0, forwarded: 0, ends: {}, answers: {}, silent: 0 }
}

/** Plays the cases of a seed; each suspicion is looked at again with patience before it is a finding. */
export async function runFuzz({
  seed,
  count,
  deadline = Infinity,
  onFinding,
  onCase,
  tally = newTally(),
}: FuzzRun) {
  const findings: Finding[] = []
  const next = fuzzCases(seed)
  let world: FuzzWorld | undefined
  try {
    for (let number = 0; number < count && Date.now() < deadline; number += 1) {
      if (number % CASES_OF_ONE_WORLD === 0) {
        await world?.close()
        world = await startFuzzWorld()
      }
      const one = next()
      const outcome = await world!.play(one)
      note(tally, outcome)
      onCase?.(one, outcome)
      if (faultsOf(world!, outcome).length === 0) continue
      const finding = await lookAgain(world!, one, number)
      if (!finding) continue
      findings.push(finding)
      onFinding?.(finding)
      if (findings.length >= MOST_FINDINGS) break
    }
  } finally {
    await world?.close()
  }
  return { findings, tally }
}

async function lookAgain(world: FuzzWorld, one: FuzzCase, number: number): Promise<Finding | undefined> {
  const outcome = await world.play(one, PATIENT_MS)
  const faults = faultsOf(world, outcome)
  if (faults.length === 0) return undefined
  const look = async (smaller: FuzzCase) => faultsOf(world, await world.play(smaller))
  const { minimal, minimalFaults } = await shrink(one, faults, look)
  return { number, faults, minimal, minimalFaults, outcome }
}

function note(tally: FuzzTally, { reading, received, requests, answersBeforeSilence }: FuzzOutcome): void {
  tally.cases += 1
  tally.framed += reading.requests.length
  tally.forwarded += requests.length
  tally.silent += answersBeforeSilence === undefined ? 0 : 1
  const end = reading.why === undefined ? reading.end : `fault: ${reading.why}`
  tally.ends[end] = (tally.ends[end] ?? 0) + 1
  for (const { status, code } of received.answers) {
    const name = `${status} ${code ?? ''}`.trim()
    tally.answers[name] = (tally.answers[name] ?? 0) + 1
  }
}
