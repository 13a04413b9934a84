import { readFileSync } from 'node:fs'

/** The arguments of the `redis-cli` line in the README. */
export function accessRule(password: string): string[] {
  const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8')
  const [, rule = ''] = /^redis-cli (ACL SETUSER [^`]*)/m.exec(readme) ?? []
  const words = rule.replaceAll(/[\\']/g, '').trim().split(/\s+/)
  return words.map((word) => word.replace('PASSWORD', password))
}
