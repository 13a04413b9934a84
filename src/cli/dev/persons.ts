import { readFileSync } from 'node:fs'
import { parseYaml } from '../../config/yaml-file.ts'
import { isPerson } from '../../demo/profiles/profile.ts'
import type { Person } from '../../demo/provider/identity-provider-options.ts'

/** Who can sign in where no file says otherwise. */
const DEFAULT_PERSONS: readonly Person[] = [
  { sub: 'ada', name: 'Ada Lovelace', email: 'ada@example.com', roles: ['admin', 'staff'] },
  { sub: 'grace', name: 'Grace Hopper', email: 'grace@example.com', roles: ['staff'] },
  { sub: 'alan', name: 'Alan Turing', email: 'alan@example.com', roles: [] },
]

const EXAMPLE = '- { sub: ada, name: Ada Lovelace, email: ada@example.com, roles: [admin] }'

/** The persons of a YAML file, or the usual ones. Throws with the file, the field, the value and the cure. */
export function readPersons(file: string | undefined): readonly Person[] {
  if (file === undefined) return DEFAULT_PERSONS
  const persons: unknown = parseYaml(readText(file), file).document.toJS({ maxAliasCount: 100 })
  if (!Array.isArray(persons) || persons.length === 0)
    throw new Error(`${file}: must be a list of persons, e.g. "${EXAMPLE}"`)
  const subs = new Set<unknown>()
  persons.forEach((person, index) => {
    if (!isPerson(person)) {
      const got = JSON.stringify(person)?.slice(0, 100)
      throw new Error(
        `${file}: [${index}] needs a sub and a name, both texts, e.g. "${EXAMPLE}" (got ${got})`,
      )
    }
    if (subs.has(person.sub))
      throw new Error(
        `${file}: [${index}].sub "${person.sub}" is there twice: give each person a sub of its own`,
      )
    subs.add(person.sub)
  })
  return persons as Person[]
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    const { code } = error as { code?: string }
    throw new Error(`--persons ${file} cannot be read (${code}): name a YAML file, e.g. with "${EXAMPLE}"`)
  }
}
