import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

type Manifest = {
  readonly name?: string
  readonly version?: string
  readonly license?: string | { readonly type?: string }
  readonly licenses?: readonly { readonly type?: string }[]
  readonly author?: string | { readonly name?: string }
}

/** A package that is shipped: its name, version and licence, and the folder that it is in. */
export type ShippedPackage = {
  readonly name: string
  readonly version: string
  readonly license: string
  readonly author: string
  readonly folder: string
}

/** The packages that these package.json files describe; one that only tells the format of its folder has no version. */
export function packagesOf(manifests: readonly string[]): ShippedPackage[] {
  const packages = manifests.flatMap((path): ShippedPackage[] => {
    const { name, version, license, licenses, author } = JSON.parse(readFileSync(path, 'utf8')) as Manifest
    if (name === undefined || version === undefined) return []
    const stated = typeof license === 'string' ? license : (license?.type ?? licenses?.[0]?.type ?? '')
    const by = typeof author === 'string' ? author : (author?.name ?? '')
    return [{ name, version, license: stated, author: by, folder: dirname(path) }]
  })
  return packages.sort((a, b) =>
    a.name < b.name ? -1 : a.name > b.name ? 1 : a.version < b.version ? -1 : 1,
  )
}

const LICENCE_FILE = /^(licen[cs]e|copying|notice)/i

/** The licence texts in a package's folder. */
function textsOf({ folder }: ShippedPackage): string[] {
  const files = readdirSync(folder, { withFileTypes: true }).filter(
    (entry) => entry.isFile() && LICENCE_FILE.test(entry.name),
  )
  return files.map(({ name }) => readFileSync(join(folder, name), 'utf8').replaceAll('\r\n', '\n').trim())
}

/**
 * The notice that licences ask to be passed on with the code: each text once, after the packages that it belongs to.
 * A package without a text has its licence and author named. Ends with the text of Node.js itself where the build has it.
 */
export function noticesOf(packages: readonly ShippedPackage[], nodeLicence = '/usr/local/LICENSE'): string {
  const byText = new Map<string, ShippedPackage[]>()
  for (const each of packages) {
    const own = textsOf(each)
    const stated = `Licence: ${each.license || 'not stated'}${each.author ? `. Author: ${each.author}` : ''}`
    for (const text of own.length > 0 ? own : [stated]) byText.set(text, [...(byText.get(text) ?? []), each])
  }
  const sections = [...byText].map(([text, of]) => {
    const names = of.map(
      ({ name, version, license }) => `${name} ${version}${license ? ` (${license})` : ''}`,
    )
    return `${[...new Set(names)].join('\n')}\n\n${text}\n`
  })
  if (existsSync(nodeLicence)) sections.push(`Node.js\n\n${readFileSync(nodeLicence, 'utf8').trim()}\n`)
  return ['Cloakroom is made with these packages. Their licences:\n', ...sections].join(
    `\n${'-'.repeat(80)}\n\n`,
  )
}
