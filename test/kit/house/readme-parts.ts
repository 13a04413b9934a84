import { createHash, generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { ConfigError, type LoadedConfig, loadConfig } from '../../../src/config/load.ts'
import { selfSigned } from '../self-signed.ts'

/** The repository's root, with a slash at its end. */
export const ROOT = new URL('../../../', import.meta.url)

/** The text of a file of the repository. */
export function fileText(path: string): string {
  return readFileSync(fileURLToPath(new URL(path, ROOT)), 'utf8')
}

/** The content of every fenced block of one language, in order. */
export function blocksOf(markdown: string, language: string): string[] {
  return [...markdown.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)]
    .filter(([, name]) => name === language)
    .map(([, , text = '']) => text)
}

/** The rows of every table whose first header cell is `heading`: trimmed cells, without header and ruler. */
export function tableRows(markdown: string, heading: string): string[][] {
  const tables = markdown.split(/\n\n+/).filter((part) => cellsOf(part)[0] === heading)
  return tables.flatMap((table) => table.trim().split('\n').slice(2).map(cellsOf))
}

function cellsOf(row: string): string[] {
  return row
    .slice(1, -1)
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim())
}

/** The text of a cell that is one code span, else undefined. */
export function codeIn(cell: string | undefined): string | undefined {
  return /^`([^`]+)`$/.exec(cell ?? '')?.[1]
}

/** The anchor that a heading gets when Markdown is shown on the web. */
export function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\w\- ]/g, '')
    .replaceAll(' ', '-')
}

/** One field that an operator writes: no block of its own. */
export type SchemaField = { readonly path: string; readonly isRequired: boolean; readonly default: unknown }

type SchemaNode = {
  readonly properties?: Record<string, SchemaNode>
  readonly required?: readonly string[]
  readonly oneOf?: readonly SchemaNode[]
  readonly items?: SchemaNode
  readonly additionalProperties?: SchemaNode
  readonly default?: unknown
}

/** Every field of a JSON Schema: `[]` stands for an item of a list, `NAME` for a name that the operator chooses. */
export function schemaFields(node: SchemaNode, path = '', isRequired = false): SchemaField[] {
  if (node.properties) {
    return Object.entries(node.properties).flatMap(([name, child]) => {
      const isNeeded = node.required?.includes(name) ?? false
      return schemaFields(child, path === '' ? name : `${path}.${name}`, isNeeded)
    })
  }
  if (node.oneOf) return node.oneOf.flatMap((variant) => schemaFields(variant, path))
  if (node.items?.properties) return schemaFields(node.items, `${path}[]`)
  if (node.additionalProperties?.properties) return schemaFields(node.additionalProperties, `${path}.NAME`)
  return [{ path, isRequired, default: node.default }]
}

/** One for each name: the same key twice is an error. */
const sessionKey = (name: string) => createHash('sha256').update(name).digest('base64url')
const PRIVATE_KEY = generateKeyPairSync('rsa', {
  modulusLength: 2048,
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
}).privateKey

const CERTIFICATE = selfSigned(['app.example.com'], { key: PRIVATE_KEY, days: 365 }).cert

/** What a reader writes for TENANT_ID: the placeholder itself is warned about. */
const TENANT_ID = '72f988bf-86f1-41af-91ab-2d7cd011db47'

/** Loads a config text as if every secret that it names were there, and its placeholder filled in. Throws ConfigError. */
export function loadWithSecrets(written: string): LoadedConfig {
  const text = written.replaceAll('TENANT_ID', TENANT_ID)
  const env = { CLIENT_SECRET: 'a client secret', SESSION_KEY: sessionKey('SESSION_KEY') }
  return loadConfig({ text, file: 'config/cloakroom.yaml', env, readFile: secretFile })
}

/** What is wrong with a config text; empty when nothing is. */
export function problemsOf(text: string): { path: string; message: string }[] {
  try {
    loadWithSecrets(text)
    return []
  } catch (error) {
    if (error instanceof ConfigError) return [...error.problems]
    throw error
  }
}

/** A file of a secret as its name promises: a session key, a private key with its certificate, or a word. */
export function secretFile(path: string): string {
  if (path.includes('session-key')) return sessionKey(path)
  if (/\.key$|key\.pem$/.test(path)) return PRIVATE_KEY
  if (/\.(?:pem|crt)$/.test(path)) return CERTIFICATE
  return 'a secret'
}
