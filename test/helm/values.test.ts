import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { parse } from 'yaml'
import { runRouteTests } from '../../src/cli/config/route-tests.ts'
import { chartFile, configOf, loadMounted, type Manifest, mergeValues } from '../kit/chart.ts'
import { chartPath, valueRows, valuesReadme, valuesSchema } from './chart-documents.ts'

const STALE = 'out of date: npm run schema'

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
  test('the default config names its secrets as files below the mount path, and holds none', () => {
    const { mountPath, existingSecret } = values.secrets
    const { provider, session } = configOf(values)
    const files = ['client-secret', 'session-key'].map((file) => ({ file: `${mountPath}/${file}` }))
    assert.deepEqual([provider.clientAuth.secret, ...session.keys], files)
    assert.equal(existingSecret, '')
  })

  test('the example, over the defaults, is a config that Cloakroom runs, with all of its tests passing', () => {
    const example = mergeValues(values, chartFile('ci/example-values.yaml'))
    const { loaded } = loadMounted(configOf(example))
    assert.deepEqual(loaded.warnings, [])
    assert.deepEqual(runRouteTests(loaded.config), [])
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
      if (section.additionalProperties === false && key !== 'config')
        assert.deepEqual(Object.keys(section.properties).sort(), Object.keys(values[key]).sort(), key)
  })

  test('the schema of the values has that of the config, and the README every value', () => {
    assert.equal(readFileSync(chartPath('values.schema.json'), 'utf8'), valuesSchema(), STALE)
    assert.equal(readFileSync(chartPath('README.md'), 'utf8'), valuesReadme(), STALE)
  })

  test('every value has a comment, or a name that Kubernetes explains', () => {
    const bare = valueRows().filter(({ about }) => about === '')
    const known =
      /(?:nnotations|abels|ClassName|className|interval|elabelings|nodeSelector|tolerations|affinity|dnsPolicy|extra\w+)$/
    assert.deepEqual(
      bare.map(({ path }) => path).filter((path) => !known.test(path)),
      [],
    )
  })

  test('the icon of the chart is the file beside it', () => {
    const icon = readFileSync(chartPath('files/icon.svg')).toString('base64')
    assert.equal(chartFile('Chart.yaml').icon, `data:image/svg+xml;base64,${icon}`)
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

const dockerfile = readFileSync(new URL('../../Dockerfile', import.meta.url), 'utf8')

describe('the Dockerfile', () => {
  test('starts Node.js itself, so that SIGTERM reaches it and a command follows the image name', () => {
    assert.match(dockerfile, /^ENTRYPOINT \["\/nodejs\/bin\/node", "\/app\/dist\/main\.js"\]$/m)
    assert.doesNotMatch(dockerfile, /^CMD/m)
  })

  test('runs as the numeric user that the chart runs it as', () => {
    const { runAsUser, runAsGroup } = values.podSecurityContext
    assert.match(dockerfile, new RegExp(`^USER ${runAsUser}:${runAsGroup}$`, 'm'))
  })

  test('brings its code compiled by the runtime itself, as the user that runs it, and cannot change it', () => {
    const compiled = /^FROM \$\{RUNTIME_IMAGE\} AS compiled$([\s\S]*?)^FROM /m.exec(dockerfile)?.[1] ?? ''
    const { runAsUser, runAsGroup } = values.podSecurityContext
    assert.match(
      compiled,
      new RegExp(
        `^USER ${runAsUser}:${runAsGroup}\n[^]*warm.ts", "/app/dist/main.js", "/app/compile-cache"`,
        'm',
      ),
    )
    assert.match(dockerfile, /^COPY --from=compiled --chown=0:0 \/app\/compile-cache \.\/compile-cache$/m)
    assert.match(dockerfile, /^ {4}NODE_COMPILE_CACHE=\/app\/compile-cache \\$/m)
  })

  test('builds where only its base images can be pulled', () => {
    assert.doesNotMatch(dockerfile, /^# *syntax=/m)
    for (const [, image] of dockerfile.matchAll(/^FROM (\S+)/gm)) assert.match(image!, /^\$\{[A-Z_]+\}$/)
  })
})
