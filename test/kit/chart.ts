import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parse, parseAllDocuments } from 'yaml'

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

/** Renders the chart as release `shop` with more `helm template` arguments; every object, or helm's error text. */
export function renderChart(...args: string[]): { objects: Manifest[]; error: string } {
  // The version is given because a helm that was built from source assumes an old one.
  const helm = spawnSync('helm', ['template', 'shop', chart, '--kube-version', '1.31.0', ...args], {
    encoding: 'utf8',
  })
  if (helm.status !== 0) return { objects: [], error: helm.stderr }
  const objects = parseAllDocuments(helm.stdout)
    .map((document) => document.toJS() as Manifest)
    .filter(Boolean)
  return { objects, error: '' }
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

/** The config that the chart writes for these values, but for the names of its admin Service: as `cloakroom.configFile` does it. */
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
