import { parseArgs } from 'node:util'
import { canaille } from './canaille.ts'
import { glewlwyd } from './glewlwyd.ts'
import { keycloak } from './keycloak.ts'
import { oidcProvider } from './oidc-provider.ts'
import { ROW_IDS, type RowId } from './provider.ts'
import { type ProviderResult, type RowResult, runProvider } from './suite.ts'
import { zitadel } from './zitadel.ts'

const KINDS = [keycloak, glewlwyd, canaille, zitadel, oidcProvider]

const USAGE = `usage: npm run providers -- [${KINDS.map(({ id }) => id).join(' | ')}] … [--row ROW] …

  Installs and starts real identity providers, and plays the same rows against each of them, with the config that its
  section of config/README.md shows: two replicas of Cloakroom, one redis-server, two APIs. Everything is on this
  machine; what is downloaded is kept in the user's cache folder.
  Rows: ${ROW_IDS.join(', ')}.
`

const WHOLE_MS = 60 * 60_000

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { row: { type: 'string', multiple: true }, help: { type: 'boolean', default: false } },
  })
  const unknown = [
    ...positionals.filter((id) => !KINDS.some((kind) => kind.id === id)),
    ...(values.row ?? []).filter((row) => !(ROW_IDS as readonly string[]).includes(row)),
  ]
  if (values.help || unknown.length > 0) {
    process.stderr.write(unknown.length > 0 ? `unknown: ${unknown.join(', ')}\n${USAGE}` : USAGE)
    return unknown.length > 0 ? 2 : 0
  }
  setTimeout(() => {
    console.error(`not done after ${WHOLE_MS / 60_000} minutes`)
    process.exit(1)
  }, WHOLE_MS).unref()
  // Every child is ended at our exit.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
  const chosen = KINDS.filter(({ id }) => positionals.length === 0 || positionals.includes(id))
  const results: ProviderResult[] = []
  for (const kind of chosen) {
    console.log(`${kind.title} …`)
    const rows = values.row as RowId[] | undefined
    results.push(
      await runProvider(kind, { ...(rows ? { rows } : {}), onRow: (row) => console.log(lineOf(row)) }).catch(
        failedToRun(kind.title),
      ),
    )
  }
  console.log(`\n${tableOf(results)}`)
  const failures = results.flatMap(({ rows }) => rows).filter(({ outcome }) => outcome === 'FAIL').length
  console.log(failures === 0 ? 'all as it must be' : `${failures} failures`)
  return failures === 0 ? 0 : 1
}

function failedToRun(title: string) {
  return (error: unknown): ProviderResult => {
    const detail = error instanceof Error ? error.message : String(error)
    return {
      title,
      ms: 0,
      rows: [{ row: 'sign-in', outcome: 'FAIL', detail: `does not run: ${detail}`, ms: 0 }],
    }
  }
}

function lineOf({ row, outcome, detail, ms }: RowResult): string {
  const verdict = detail === '' ? outcome : `${outcome}: ${detail}`
  return `  ${row.padEnd(18)} ${`${(ms / 1000).toFixed(1)} s`.padStart(8)}  ${verdict}`
}

function tableOf(results: readonly ProviderResult[]): string {
  return results
    .map(({ title, notRun, rows, ms }) => {
      if (notRun !== undefined) return `${title}: NOT RUN, ${notRun}`
      return [`${title}, ${(ms / 1000).toFixed(0)} s`, ...rows.map(lineOf)].join('\n')
    })
    .join('\n')
}

process.exitCode = await main().catch((error) => {
  console.error(error)
  return 1
})
process.exit()
