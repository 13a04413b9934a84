import { readFileSync } from 'node:fs'

/** The arguments of the `redis-cli` line in helm/README.md. */
export function accessRule(password: string): string[] {
  return ruleAt(/^redis-cli (ACL SETUSER [^`]*)/m, password)
}

/** The same for what it says to add with a cluster and with `durability: replica`. */
export function addedRights(): {
  readonly cluster: readonly string[]
  readonly durability: readonly string[]
} {
  const [, cluster = '', durability = ''] =
    /With `cluster` add `([^`]+)`, with `durability: replica` add `([^`]+)`/.exec(readme()) ?? []
  return { cluster: cluster.split(' '), durability: durability.split(' ') }
}

/** The rule for the user at the sentinels. */
export function sentinelAccessRule(password: string): string[] {
  return ruleAt(/^redis-cli -p 26379 (ACL SETUSER [^`]*)/m, password)
}

function ruleAt(line: RegExp, password: string): string[] {
  const [, rule = ''] = line.exec(readme()) ?? []
  const words = rule.replaceAll(/[\\']/g, '').trim().split(/\s+/)
  return words.map((word) => word.replace('PASSWORD', password))
}

const readme = () => readFileSync(new URL('../../../helm/README.md', import.meta.url), 'utf8')
