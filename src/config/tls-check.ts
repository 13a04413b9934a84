import type { FieldPath } from './problem.ts'
import type { Report } from './report.ts'

type DraftTls = { ca?: unknown; cert?: unknown; key?: unknown; servername?: unknown }

/** Reports a `tls:` block that has no effect or cannot work. */
export function checkTls(tls: DraftTls | undefined, usesTls: boolean, path: FieldPath, report: Report): void {
  const isGiven = (value: unknown) => value !== undefined && value !== null
  if (!usesTls && Object.values(tls ?? {}).some(isGiven)) {
    report.problem(path, 'has no effect: the URL beside it says to connect without TLS')
  }
  const missing = (['cert', 'key'] as const).filter((name) => !isGiven(report.written([...path, name])))
  if (missing.length === 1) {
    report.problem([...path, missing[0]!], 'is required: a client certificate needs both cert and key')
  }
}
