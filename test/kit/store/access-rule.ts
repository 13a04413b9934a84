import { readFileSync } from 'node:fs'

/** The arguments of the `redis-cli` line in helm/README.md. */
export function accessRule(password: string): string[] {
  const readme = readFileSync(new URL('../../../helm/README.md', import.meta.url), 'utf8')
  const [, rule = ''] = /^redis-cli (ACL SETUSER [^`]*)/m.exec(readme) ?? []
  const words = rule.replaceAll(/[\\']/g, '').trim().split(/\s+/)
  return words.map((word) => word.replace('PASSWORD', password))
}
