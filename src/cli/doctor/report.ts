import { version } from '../../version.ts'
import type { Finding, Level } from './finding.ts'

const MARKS: Readonly<Record<Level, string>> = { ok: 'ok  ', warn: 'warn', fail: 'FAIL' }

type Report = { readonly file: string; readonly findings: readonly Finding[] }

/** A line for each finding, with its cure below, under the name of its group. */
export function inWords({ file, findings }: Report): string {
  const width = Math.max(...findings.map(({ check }) => check.length))
  const groups = Map.groupBy(findings, ({ group }) => group)
  const blocks = Array.from(groups, ([group, own]) =>
    [group, ...own.map((finding) => lineOf(finding, width))].join('\n'),
  )
  return `cloakroom ${version()} doctor, ${file}\n\n${blocks.join('\n\n')}\n\n${summary(findings)}\n`
}

function lineOf({ level, check, message, cure }: Finding, width: number): string {
  const below = cure === undefined ? '' : `\n${' '.repeat(width + 9)}→ ${printable(cure)}`
  return `  ${MARKS[level]} ${printable(check).padEnd(width)}  ${printable(message)}${below}`
}

function summary(findings: readonly Finding[]): string {
  const count = (wanted: Level) => findings.filter(({ level }) => level === wanted).length
  return `${count('fail')} FAIL, ${count('warn')} warn, ${count('ok')} ok`
}

/** One JSON object, for scripts. */
export function inJson({ file, findings }: Report): string {
  const ok = findings.every(({ level }) => level !== 'fail')
  const told = findings.map(({ group, check, level, message, cure = null }) => ({
    ...{ group, check, level, message, cure },
  }))
  return `${JSON.stringify({ version: version(), file, ok, findings: told }, null, 2)}\n`
}

/** What a provider or a server says steers no terminal. */
function printable(text: string): string {
  return text.replaceAll(/\p{C}/gu, '?')
}
