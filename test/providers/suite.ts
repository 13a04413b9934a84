import type { Browser } from '../kit/browsers/browser.ts'
import { type ProviderKind, ROW_IDS, type RowId, type Scene } from './provider.ts'
import { assertInvariants, outcomeOf, ROWS } from './rows.ts'
import { startScene } from './scene.ts'

/** What came of one row. */
export type RowResult = {
  readonly row: RowId
  readonly outcome: 'ok' | 'limit' | 'FAIL'
  /** Of a limit its reason, of a failure what went wrong. */
  readonly detail: string
  readonly ms: number
}

/** What came of one provider. */
export type ProviderResult = {
  readonly title: string
  /** Why nothing was tried. */
  readonly notRun?: string
  readonly rows: readonly RowResult[]
  readonly ms: number
}

const ROW_MS = 120_000

/** Starts a provider, plays every row against it, one after the other, and ends everything again. */
export async function runProvider(
  kind: ProviderKind,
  options: { rows?: readonly RowId[]; onRow?: (result: RowResult) => void } = {},
): Promise<ProviderResult> {
  const startedAt = performance.now()
  const done = (result: Partial<ProviderResult>): ProviderResult => ({
    ...{ title: kind.title, rows: [], ms: performance.now() - startedAt },
    ...result,
  })
  const missing = await kind.missing()
  if (missing !== undefined) return done({ notRun: missing })
  const cleanUps: (() => unknown)[] = []
  const rows: RowResult[] = []
  try {
    const provider = await kind.start()
    cleanUps.push(() => provider.stop())
    const scene = await startScene({ after: (cleanUp) => cleanUps.push(cleanUp) }, kind, provider)
    for (const row of options.rows ?? ROW_IDS) {
      const result = await playRow(kind, scene, row)
      options.onRow?.(result)
      rows.push(result)
    }
  } finally {
    for (const cleanUp of cleanUps.reverse()) await cleanUp()
  }
  return done({ rows })
}

async function playRow(kind: ProviderKind, scene: Scene, row: RowId): Promise<RowResult> {
  const startedAt = performance.now()
  const browsers: Browser[] = []
  const watched: Scene = {
    ...scene,
    browser() {
      const browser = scene.browser()
      browsers.push(browser)
      return browser
    },
  }
  const limited = kind.limits[row]
  const heard = scene.replicas.map(({ stdout }) => stdout.length)
  const asked = scene.provider.tokenExchanges.length
  const result = (outcome: RowResult['outcome'], detail: string) => ({
    ...{ row, outcome, detail, ms: performance.now() - startedAt },
  })
  try {
    await within(ROW_MS, (limited?.check ?? ROWS[row])(watched))
    assertInvariants(watched, browsers)
    return limited ? result('limit', limited.reason) : result('ok', '')
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    const exchanges = scene.provider.tokenExchanges.slice(asked).map(outcomeOf)
    const warnings = scene.replicas.flatMap(({ stdout }, index) =>
      stdout.slice(heard[index]).filter(isWarning),
    )
    const story = [message, `token requests: ${exchanges.join(', ') || 'none'}`, ...warnings].join('\n')
    return result('FAIL', withoutTokens(story))
  } finally {
    for (const browser of browsers) browser.close()
  }
}

async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${ms / 1000} s`)), ms)
  })
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}

const MOST_DETAIL = 3000

/** What went wrong, without what could be used by whoever reads it. */
function withoutTokens(text: string): string {
  return text
    .replace(/\b[\w-]{20,}(\.[\w-]{10,})+|(?<=[=&?]code=)[^&\s]+/g, (token) => `${token.slice(0, 6)}…`)
    .slice(0, MOST_DETAIL)
}

/** A log line of level warn or worse. */
function isWarning(line: string): boolean {
  return /"level":(?:"(?:warn|error|fatal)"|[456]0)/.test(line)
}
