import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { parse, stringify } from 'yaml'
import { runRouteTests } from '../../src/cli/config/route-tests.ts'
import { loadConfig } from '../../src/config/load.ts'
import { chartFile, configOf, type Manifest, mergeValues } from '../kit/chart.ts'

const values = chartFile('values.yaml')
const schema = chartFile('values.schema.json')

/** Values of another kind than the defaults, as operators write them: without a null for each default. */
const ANOTHER_KIND: readonly [string, Manifest][] = [
  ['a memory store', { session: { store: { type: 'memory' } } }],
  ['a cluster', { session: { store: { cluster: ['redis:6379'], tls: {} } } }],
  ['sentinels', { session: { store: { sentinels: ['redis:26379'], masterName: 'mymaster', tls: {} } } }],
  ['a url of which the password is null', { session: { store: { url: 'rediss://redis', password: null } } }],
  [
    'a workload identity',
    { provider: { clientAuth: { method: 'workload_identity', assertionFile: '/run/token' } } },
  ],
  ['no client authentication', { provider: { clientAuth: { method: 'none', secret: null } } }],
]

describe('the chart without helm', () => {
  test('the default config names its secrets as files below the mounted Secret, and holds none', () => {
    const { mountPath, files, existingSecret } = values.secrets
    const mounted = Object.keys(files).map((file) => ({ file: `${mountPath}/${file}` }))
    const { provider, session } = configOf(values)
    const named = [provider.clientAuth.secret, ...session.keys]
    assert.deepEqual(named, mounted)
    assert.equal(existingSecret, '')
  })

  test('the example, over the defaults, is a config that Cloakroom runs, with all of its tests passing', () => {
    const example = mergeValues(values, chartFile('ci/example-values.yaml'))
    const { secrets } = example
    const { loaded, read } = loadMounted(configOf(example))
    assert.deepEqual(loaded.warnings, [])
    assert.deepEqual(runRouteTests(loaded.config), [])
    const mounted = Object.keys(secrets.files).map((file) => `${secrets.mountPath}/${file}`)
    assert.deepEqual(read.sort(), mounted.sort())
  })

  test('the defaults need what the chart asks for, and nothing else', () => {
    assert.deepEqual(loadMounted(configOf(withRequired({}))).loaded.warnings, [])
  })

  for (const [what, changes] of ANOTHER_KIND)
    test(`no default of another kind stands beside ${what}`, () => {
      const { config } = loadMounted(configOf(withRequired(changes))).loaded
      const written = changes.session?.store ?? changes.provider?.clientAuth
      const kind = changes.session ? config.session.store.type : config.provider.clientAuth.method
      assert.equal(kind, written.type ?? written.method ?? 'redis')
    })

  test('the schema knows every value that values.yaml explains, and no other', () => {
    const known = Object.keys(schema.properties).filter((key) => key !== 'global')
    assert.deepEqual(known.sort(), Object.keys(values).sort())
    for (const [key, section] of Object.entries<Manifest>(schema.properties))
      if (section.additionalProperties === false)
        assert.deepEqual(Object.keys(section.properties).sort(), Object.keys(values[key]).sort(), key)
  })

  test('the chart, the package and the image carry one version', () => {
    const { version } = parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
    assert.equal(chartFile('Chart.yaml').version, version)
    assert.equal(chartFile('Chart.yaml').appVersion, version)
    assert.match(dockerfile, new RegExp(`^ARG VERSION=${version}$`, 'm'))
  })
})

/** What is required, and more. */
function withRequired({ session, provider }: Manifest): Manifest {
  const required = {
    publicUrl: 'https://app.example.com',
    provider: { issuer: 'https://login.example.com', clientId: 'app', ...provider },
    session: { store: { url: 'rediss://redis:6379' }, ...session },
    routes: [{ path: '/', upstream: 'http://spa:80', auth: 'anonymous' }],
  }
  return mergeValues(values, { config: required })
}

/** Loads a config as a pod would: every secret file it names holds a key. */
function loadMounted(config: Manifest) {
  const read: string[] = []
  const loaded = loadConfig({
    text: stringify(config),
    file: '/etc/cloakroom/cloakroom.yaml',
    env: {},
    readFile(path) {
      if (!read.includes(path)) read.push(path)
      return randomBytes(32).toString('base64url')
    },
  })
  return { loaded, read }
}

const dockerfile = readFileSync(new URL('../../Dockerfile', import.meta.url), 'utf8')

describe('the Dockerfile', () => {
  test('starts Node.js itself, so that SIGTERM reaches it and a command follows the image name', () => {
    assert.match(
      dockerfile,
      /^ENTRYPOINT \["\/nodejs\/bin\/node", "--enable-source-maps", "\/app\/dist\/main\.js"\]$/m,
    )
    assert.doesNotMatch(dockerfile, /^CMD/m)
  })

  test('runs as the numeric user that the chart runs it as', () => {
    const { runAsUser, runAsGroup } = values.podSecurityContext
    assert.match(dockerfile, new RegExp(`^USER ${runAsUser}:${runAsGroup}$`, 'm'))
  })

  test('builds where only its base images can be pulled', () => {
    assert.doesNotMatch(dockerfile, /^# *syntax=/m)
    for (const [, image] of dockerfile.matchAll(/^FROM (\S+)/gm)) assert.match(image!, /^\$\{[A-Z_]+\}$/)
  })
})
