import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { UnitCosts } from './unit-costs.ts'

/** The tables of the chapter that are written by programs. */
export type TableName = 'unit costs' | 'sizes' | 'limits' | 'refresh load'

const README = 'helm/README.md'
const COSTS = 'test/capacity/unit-costs.json'

/** The path of a file of the repository. */
export const fileOf = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url))

/** The unit costs that the chapter goes by. */
export function writtenCosts(): UnitCosts {
  return JSON.parse(readFileSync(fileOf(COSTS), 'utf8')) as UnitCosts
}

/** Keeps unit costs for the chapter, with figures as exact as they can be. */
export function writeCosts(costs: UnitCosts): void {
  const rounded = (_: string, value: unknown) =>
    typeof value === 'number' ? Math.round(value * 100) / 100 : value
  writeFileSync(fileOf(COSTS), `${JSON.stringify(costs, rounded, 2)}\n`)
}

const marked = (name: TableName) =>
  new RegExp(`(<!-- ${name}: by a program -->\n)([\\s\\S]*?)(\n<!-- end -->)`)

/** A table as it stands in the chapter. Throws when it is not there. */
export function writtenTable(name: TableName): string {
  const found = marked(name).exec(readFileSync(fileOf(README), 'utf8'))
  if (!found) throw new Error(`${README} has no table "${name}"`)
  return found[2]!
}

/** Replaces a table of the chapter. */
export function writeTable(name: TableName, text: string): void {
  const before = readFileSync(fileOf(README), 'utf8')
  writeFileSync(
    fileOf(README),
    before.replace(marked(name), (_, start, __, end) => start + text + end),
  )
}
