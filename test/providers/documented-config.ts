import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { parse } from 'yaml'

/** A config file as plain data. */
export type ConfigData = { [field: string]: unknown }

const PAGE = new URL('../../config/README.md', import.meta.url)

/** The config that a provider's section of `config/README.md` shows. */
export function documentedConfig(section: string): ConfigData {
  const text = readFileSync(PAGE, 'utf8')
  const found = text.split(/^### /m).find((part) => part.startsWith(`${section}\n`))
  const block = /^```yaml\n([\s\S]*?)^```$/m.exec(found ?? '')?.[1]
  assert.ok(block, `config/README.md has no section "${section}" with a config`)
  return parse(block) as ConfigData
}

/** The same config with other strings in the place of some whole ones; each of them must be there. */
export function substituted(config: ConfigData, replacements: ReadonlyMap<string, string>): ConfigData {
  const used = new Set<string>()
  const replace = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(replace)
    if (typeof value === 'object' && value !== null)
      return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, replace(member)]))
    if (typeof value !== 'string' || !replacements.has(value)) return value
    used.add(value)
    return replacements.get(value)
  }
  const changed = replace(config) as ConfigData
  const unused = [...replacements.keys()].filter((text) => !used.has(text))
  assert.deepEqual(unused, [], 'the documented config has these strings')
  return changed
}
