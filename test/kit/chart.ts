import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parse, parseAllDocuments, stringify } from 'yaml'
import { loadConfig } from '../../src/config/load.ts'
import { secretFile } from './house/readme-parts.ts'

/** A Kubernetes object or a values file, as YAML gives it. */
// biome-ignore lint/suspicious/noExplicitAny: manifests are other people's types; the assertions name what they read.
export type Manifest = any

const chart = fileURLToPath(new URL('../../helm/cloakroom', import.meta.url))

/** The chart's complete example. */
export const exampleValues = `${chart}/ci/example-values.yaml`

/** Why the chart cannot be rendered on this machine; false when it can. */
export const helmMissing: string | false =
  spawnSync('helm', ['version', '--short']).status === 0
    ? false
    : 'SKIPPED: no helm on PATH, so the templates were NOT rendered (https://helm.sh/docs/intro/install)'

/** One file of the chart, parsed. */
export function chartFile(name: string): Manifest {
  return parse(readFileSync(`${chart}/${name}`, 'utf8'))
}

/** Every values file of the chart's ci folder. */
export const ciValues: readonly string[] = readdirSync(`${chart}/ci`).map((file) => `${chart}/ci/${file}`)

// The version is given because a helm that was built from source assumes an old one.
const VERSION = ['--kube-version', '1.31.0']

/** Renders the chart as release `shop` with more `helm template` arguments; every object, or helm's error text. */
export function renderChart(...args: string[]): { objects: Manifest[]; error: string; text: string } {
  const helm = spawnSync('helm', ['template', 'shop', chart, ...VERSION, ...args], { encoding: 'utf8' })
  if (helm.status !== 0) return { objects: [], error: helm.stderr, text: '' }
  // Strict: a key that is there twice is an error, as at the API server.
  const documents = parseAllDocuments(helm.stdout, { uniqueKeys: true })
  const problems = documents.flatMap(({ errors }) => errors.map(({ message }) => message))
  const objects = documents.map((document) => document.toJS() as Manifest).filter(Boolean)
  return { objects, error: problems.join('\n'), text: helm.stdout }
}

/** The example with more values, each `PATH=VALUE` as `--set` has it, or `PATH=JSON`. */
export function renderExample(...sets: string[]) {
  const args = sets.flatMap((set) => [/^[\w.[\]]+=[[{"]/.test(set) ? '--set-json' : '--set', set])
  return renderChart('-n', 'shop', '-f', exampleValues, ...args)
}

/** What `helm lint --strict` says of the chart with one values file; '' when it is content. */
export function lintChart(...args: string[]): string {
  const helm = spawnSync('helm', ['lint', '--strict', chart, ...VERSION, ...args], { encoding: 'utf8' })
  return helm.status === 0 ? '' : `${helm.stdout}${helm.stderr}`
}

/** The notes of an installation: `helm template` shows none, but an object of the values may include them. */
export function chartNotes(...args: string[]): string {
  const notes = '{{ include "cloakroom/templates/NOTES.txt" . | b64enc }}'
  const object = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'notes' }, data: { notes } }
  const { objects, error } = renderChart(...args, '--set-json', `extraObjects=${JSON.stringify([object])}`)
  const encoded: string | undefined = objects.find(({ metadata }) => metadata.name === 'notes')?.data.notes
  return encoded ? Buffer.from(encoded, 'base64').toString() : error
}

/** Loads a config as a pod would, with every secret file there, and tells which were read. */
export function loadMounted(config: Manifest, env: Record<string, string> = {}) {
  const read: string[] = []
  const loaded = loadConfig({
    text: stringify(config),
    file: '/etc/cloakroom/cloakroom.yaml',
    env,
    readFile(path) {
      if (!read.includes(path)) read.push(path)
      return secretFile(path)
    },
  })
  return { loaded, read }
}

/** `over` merged into `base` as helm merges values: maps by key, null removes, everything else replaces. */
export function mergeValues(base: Manifest, over: Manifest): Manifest {
  if (!isMap(base) || !isMap(over)) return over
  const merged: Manifest = { ...base }
  for (const [key, value] of Object.entries(over)) {
    if (value === null) delete merged[key]
    else merged[key] = mergeValues(base[key], value)
  }
  return merged
}

/** The config that the chart writes for these values, but for the names of its admin Service: as `cloakroom.config` does it. */
export function configOf({ config, secrets }: Manifest): Manifest {
  const given = (map: Manifest) =>
    Object.fromEntries(Object.entries(map ?? {}).filter(([, value]) => value !== null))
  const { provider, session } = config
  const auth = { method: 'client_secret_post', ...given(provider.clientAuth) } as Manifest
  const secret = { file: `${secrets.mountPath}/client-secret` }
  return {
    ...config,
    provider: {
      ...provider,
      clientAuth: auth.method.startsWith('client_secret_') ? { secret, ...auth } : auth,
    },
    session: { ...session, store: { type: 'redis', ...given(session.store) } },
  }
}

function isMap(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
