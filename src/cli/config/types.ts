import { parseArgs } from 'node:util'
import type { Config } from '../../config/config.ts'
import { type CommandIo, usageError } from '../command.ts'
import { configFileName, EXIT_BAD_CONFIG, loadOrReport } from './config-file.ts'

const USAGE = `usage: cloakroom types [--config FILE] [--no-secrets] [-]

Prints TypeScript declarations of the route ids, resources and claims of a config file, without network and without the secrets: for createCloakroom<Claims>() of cloakroom-bff/client. Exit code 0; 78 with problems in the file.

  --config FILE    default: $CLOAKROOM_CONFIG, else config/cloakroom.yaml; - reads standard input
  --no-secrets     as of check; secrets are not looked at in any case

  cloakroom types > src/cloakroom-types.d.ts             make them
  cloakroom types | diff src/cloakroom-types.d.ts -      in CI: fails when they are out of date
`

/** Prints declarations of what a config file names; resolves with 0, 78 when the file is wrong, 1 for wrong arguments. */
export async function typesCommand(args: string[], io: CommandIo): Promise<number> {
  let file: string | undefined
  try {
    const options = readOptions(args)
    if (options.help) {
      io.stdout.write(USAGE)
      return 0
    }
    file = options.config
  } catch (error) {
    return usageError({ error, usage: USAGE }, io)
  }
  const loaded = loadOrReport(configFileName(file, io.env), io, { requireSecrets: false })
  if (!loaded) return EXIT_BAD_CONFIG
  io.stdout.write(declarationsOf(loaded.config))
  return 0
}

function readOptions(args: string[]): { readonly config?: string; readonly help?: boolean } {
  const flag = { type: 'boolean' } as const
  const options = { config: { type: 'string' }, 'no-secrets': flag, help: { ...flag, short: 'h' } } as const
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true })
  const [argument, ...more] = positionals
  if (more.length > 0 || (argument !== undefined && (argument !== '-' || values.config !== undefined)))
    throw new Error(
      `unexpected argument ${JSON.stringify(more[0] ?? argument)}: name a file with --config FILE`,
    )
  return { ...values, ...(argument === undefined ? {} : { config: argument }) }
}

/**
 * The declarations as the text of a module. They depend on what the file says and neither on its name nor on the order of
 * its routes, so that they are the same wherever they are made. Names are written so that none ends its literal.
 */
export function declarationsOf({ routes, resources, provider }: Config): string {
  const byId = new Map(routes.map((route) => [route.id, route]))
  const routeTypes = sorted(byId).map(([id, { path, resource, auth }]) => {
    const needed = resource === undefined ? 'undefined' : literal(resource)
    return `${propertyName(id)}: { readonly path: ${literal(path)}; readonly resource: ${needed}; readonly auth: ${literal(auth)} }`
  })
  const names = Object.keys(resources).toSorted(byCodeUnits).map(literal)
  const claims = membersOf(claimTree(claimsNamedIn(routes), provider.scopes))
  return `// Made by \`cloakroom types\`. Make it anew when the configuration changes; do not edit it.

/** Each route by its id. */
export type Routes = ${block(routeTypes)}

/** The id of a route. */
export type RouteId = keyof Routes

/** The name of a resource, for which Cloakroom gets an access token of its own. */
export type ResourceName = ${names.join(' | ') || 'never'}

/** A claim that an access rule or a header of the configuration goes by. */
export type ClaimValue = string | number | boolean | ReadonlyArray<string | number | boolean>

/** Claims of the signed-in user: those that the configuration names, and those of its scopes. A provider may send more. */
export type Claims = ${block([...ALWAYS.map(([name, type]) => `${name}: ${type}`), ...claims])}
`
}

/** Claims of every ID token (OpenID Connect Core §2). The browser sees neither nonces nor hashes of tokens. */
const ALWAYS: readonly (readonly [string, string])[] = [
  ['iss', 'string'],
  ['sub', 'string'],
  ['aud', 'string | readonly string[]'],
  ['exp', 'number'],
  ['iat', 'number'],
]

const SOMETIMES = 'auth_time: number; acr: string; amr: readonly string[]; azp: string; sid: string'

/** OpenID Connect Core §5.1 and §5.4: the claims that a scope asks for. */
const OF_SCOPES = new Map([
  [
    'profile',
    'name: string; family_name: string; given_name: string; middle_name: string; nickname: string; preferred_username: string; profile: string; picture: string; website: string; gender: string; birthdate: string; zoneinfo: string; locale: string; updated_at: number',
  ],
  ['email', 'email: string; email_verified: boolean'],
  ['phone', 'phone_number: string; phone_number_verified: boolean'],
  ['address', 'address: Readonly<Record<string, unknown>>'],
])

/** A claim, and what is known inside of it where it is an object. */
type ClaimNode = { type?: string; readonly members: ClaimTree }
type ClaimTree = Map<string, ClaimNode>

/** Claims that are not in every ID token. A name with dots may be a path into an object, as in access rules. */
function claimTree(named: readonly string[], scopes: readonly string[]): ClaimTree {
  const tree: ClaimTree = new Map()
  for (const name of named) {
    nodeOf(tree, name).type = 'ClaimValue'
    const path = name.split('.')
    const isPath = path.length > 1 && path.every((part) => IDENTIFIER.test(part))
    if (isPath) {
      const root: ClaimNode = { members: tree }
      path.reduce((node, part) => nodeOf(node.members, part), root).type = 'ClaimValue'
    }
  }
  for (const standard of [SOMETIMES, ...scopes.flatMap((scope) => OF_SCOPES.get(scope) ?? [])]) {
    for (const claim of standard.split('; ')) {
      const [name, type] = claim.split(': ') as [string, string]
      nodeOf(tree, name).type = type
    }
  }
  for (const [name] of ALWAYS) tree.delete(name)
  return tree
}

function nodeOf(tree: ClaimTree, name: string): ClaimNode {
  const node = tree.get(name) ?? { members: new Map() }
  tree.set(name, node)
  return node
}

function claimsNamedIn(routes: Config['routes']): string[] {
  return routes.flatMap(({ require: rules, headers }) => [
    ...(rules?.claims ?? []).map(({ name }) => name),
    ...headers.flatMap(({ value }) => [...value.matchAll(/\{claims\.([^{}]+)\}/g)].map(([, name]) => name!)),
  ])
}

function membersOf(tree: ClaimTree): string[] {
  return sorted(tree).map(([name, { type, members }]) => {
    const inside = members.size === 0 ? [] : [`{ ${membersOf(members).map(readonly).join('; ')} }`]
    return `${propertyName(name)}?: ${[...(type ? [type] : []), ...inside].join(' | ')}`
  })
}

function block(members: readonly string[]): string {
  const lines = members.map((member) => `  ${readonly(member)}\n`)
  return lines.length === 0 ? 'Record<never, never>' : `{\n${lines.join('')}}`
}

function readonly(member: string): string {
  return `readonly ${member}`
}

function sorted<Value>(map: ReadonlyMap<string, Value>): [string, Value][] {
  return [...map].toSorted(([a], [b]) => byCodeUnits(a, b))
}

/** The same everywhere, whatever the language of the machine. */
function byCodeUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

const IDENTIFIER = /^[A-Za-z_$][\w$]*$/

function propertyName(name: string): string {
  return IDENTIFIER.test(name) ? name : literal(name)
}

/** A string literal; what is no visible character, such as a line end or a change of direction, is escaped. */
function literal(text: string): string {
  return JSON.stringify(text).replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) =>
    character
      .split('')
      .map((unit) => escapeOf(unit.charCodeAt(0)))
      .join(''),
  )
}

function escapeOf(codeUnit: number): string {
  return `\\u${codeUnit.toString(16).padStart(4, '0')}`
}
