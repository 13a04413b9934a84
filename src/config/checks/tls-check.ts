import type { Field } from '../report/report.ts'

/** Reports a `tls:` block that has no effect beside its URL, or cannot work. */
export function checkTls(field: Field, usesTls: boolean): void {
  const isGiven = (name: string) => (field.at(name).written() ?? undefined) !== undefined
  if (!usesTls && ['ca', 'cert', 'key', 'servername'].some(isGiven)) {
    field.problem('has no effect: the URL beside it says to connect without TLS')
  }
  const missing = ['cert', 'key'].filter((name) => !isGiven(name))
  if (missing.length === 1) {
    field.at(missing[0]!).problem('is required: a client certificate needs both cert and key')
  }
}
