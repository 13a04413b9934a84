import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { parse, stringify } from 'yaml'
import { runRouteTests } from '../../src/cli/config/route-tests.ts'
import { loadConfig } from '../../src/config/load.ts'
import { chartFile, type Manifest, mergeValues } from '../kit/chart.ts'

const values = chartFile('values.yaml')
const schema = chartFile('values.schema.json')

describe('the chart without helm', () => {
  test('the default config names its secrets as files below the mounted Secret, and holds none', () => {
    const { mountPath, files, existingSecret } = values.secrets
    const mounted = Object.keys(files).map((file) => ({ file: `${mountPath}/${file}` }))
    const named = [values.config.provider.clientAuth.secret, ...values.config.session.keys]
    assert.deepEqual(named, mounted)
    assert.equal(existingSecret, '')
  })

  test('the example, over the defaults, is a config that Cloakroom runs, with all of its tests passing', () => {
    const { config, secrets } = mergeValues(values, chartFile('ci/example-values.yaml'))
    const { loaded, read } = loadMounted(config)
    assert.deepEqual(loaded.warnings, [])
    assert.deepEqual(runRouteTests(loaded.config), [])
    const mounted = Object.keys(secrets.files).map((file) => `${secrets.mountPath}/${file}`)
    assert.deepEqual(read.sort(), mounted.sort())
  })

  test('the defaults need what the chart asks for, and nothing else', () => {
    const { config } = mergeValues(values, {
      config: {
        publicUrl: 'https://app.example.com',
        provider: { issuer: 'https://login.example.com', clientId: 'app' },
        session: { store: { url: 'rediss://redis:6379' } },
        routes: [{ path: '/', upstream: 'http://spa:80', auth: 'anonymous' }],
      },
    })
    assert.deepEqual(loadMounted(config).loaded.warnings, [])
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
