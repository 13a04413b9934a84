import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { basename } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parse, stringify } from 'yaml'
import { checkCommand } from '../../src/cli/config/check.ts'
import { runRouteTests } from '../../src/cli/config/route-tests.ts'
import { ciValues, helmMissing, lintChart, loadMounted, type Manifest, renderChart } from '../kit/chart.ts'
import { secretFile } from '../kit/house/readme-parts.ts'

const KUBERNETES = '1.37.0'

/** Where kubeconform finds schemas; the machines that test may have no network, so that it must be said. */
const { KUBECONFORM_SCHEMAS } = process.env
const kubeconformMissing =
  helmMissing ||
  (KUBECONFORM_SCHEMAS && spawnSync('kubeconform', ['-v']).status === 0
    ? false
    : 'SKIPPED: no kubeconform on PATH, or no KUBECONFORM_SCHEMAS, so manifests were NOT held against the schemas')

const POD_KINDS: Readonly<Record<string, (object: Manifest) => Manifest>> = {
  Deployment: ({ spec }) => spec.template,
  Job: ({ spec }) => spec.template,
  Pod: (pod) => pod,
}

const GOLDEN = fileURLToPath(new URL('golden', import.meta.url))

/** Parsed and written again, because versions of helm differ in blank lines. */
const STYLE = { lineWidth: 0, aliasDuplicateObjects: false }

/** The dashboard and the rules are files of the chart, which have tests of their own. */
function withoutDashboard(object: Manifest): Manifest {
  if (object.kind === 'PrometheusRule') return { ...object, spec: 'files/alerts.yaml' }
  if (object.kind === 'GrafanaDashboard')
    return { ...object, spec: { ...object.spec, json: 'files/dashboard.json' } }
  const data = object.data?.['cloakroom.json'] === undefined ? object.data : 'files/dashboard.json'
  return data === undefined ? object : { ...object, data }
}

describe('every values file of helm/cloakroom/ci', { skip: helmMissing }, () => {
  test('there are at least twelve', () => assert.ok(ciValues.length >= 12))

  for (const file of ciValues) {
    const name = basename(file, '-values.yaml')
    const { objects, error, text } = helmMissing
      ? { objects: [], error: '', text: '' }
      : renderChart('-n', 'shop', '-f', file, '--set', 'apiCheck=false')
    const pods = objects.flatMap((object) => POD_KINDS[object.kind]?.(object) ?? [])
    const deployment: Manifest = objects.find(
      ({ kind, metadata }) => kind === 'Deployment' && !metadata.name.endsWith('-valkey'),
    )

    describe(name, () => {
      test('renders, and helm lint --strict is content', () => {
        assert.equal(error, '')
        assert.equal(lintChart('-n', 'shop', '-f', file, '--set', 'apiCheck=false'), '')
        assert.ok(pods.length > 0)
      })

      // To approve a change: node --test --test-update-snapshots test/helm/matrix.test.ts, and read the difference.
      test('renders what was approved', (t) => {
        const rendered = objects.map((object) => stringify(withoutDashboard(object), STYLE)).join('---\n')
        t.assert.fileSnapshot(rendered, `${GOLDEN}/${name}.yaml`, { serializers: [String] })
      })

      test('its pods meet the restricted Pod Security Standard and get no token of the API', () => {
        for (const { spec } of pods) assertRestricted(spec)
      })

      test('no variable, volume or path is there twice', () => {
        for (const { spec } of pods) {
          assertUnique(spec.volumes.map((volume: Manifest) => volume.name))
          for (const container of containersOf(spec)) {
            assertUnique((container.env ?? []).map((variable: Manifest) => variable.name))
            assertUnique((container.volumeMounts ?? []).map((mount: Manifest) => mount.mountPath))
          }
        }
      })

      test('every volume that is mounted is there, and every name fits', () => {
        for (const { spec } of pods) {
          const volumes = spec.volumes.map((volume: Manifest) => volume.name)
          for (const container of containersOf(spec))
            for (const mount of container.volumeMounts ?? [])
              assert.ok(volumes.includes(mount.name), mount.name)
        }
        for (const { metadata } of objects)
          assert.match(metadata.name, /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/)
        assertUnique(objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`))
      })

      test('its config is one that Cloakroom runs, tests passing, and the secrets it reads are mounted', () => {
        const map = objects.find(
          ({ kind, data, metadata }) =>
            kind === 'ConfigMap' && data['cloakroom.yaml'] && !metadata.annotations?.['helm.sh/hook'],
        )
        if (!map) return assert.match(name, /existing-configmap/)
        const env: Manifest[] = deployment.spec.template.spec.containers[0].env
        // The webhook of workload identity puts this one in.
        const token = ['AZURE_FEDERATED_TOKEN_FILE', '/var/run/secrets/azure/tokens/azure-identity-token']
        const variables = env.map(({ name, value }) => [name, value ?? secretFile(`session-key ${name}`)])
        const environment = Object.fromEntries([token, ...variables])
        const { loaded, read } = loadMounted(parse(map.data['cloakroom.yaml']), environment)
        const isAccepted = (warning: string) => /in this one process|without TLS/.test(warning)
        assert.deepEqual(
          loaded.warnings.filter((warning) => !isAccepted(JSON.stringify(warning))),
          [],
        )
        assert.deepEqual(runRouteTests(loaded.config), [])
        assert.deepEqual(
          read.filter((path) => path !== token[1] && !isMounted(path, deployment.spec.template.spec)),
          [],
        )
      })

      test('the hook finds nothing wrong with it, without any secret', async () => {
        const job = objects.find(({ kind }) => kind === 'Job')
        if (!job) return assert.match(name, /existing-configmap|load-balancer/)
        const [container] = job.spec.template.spec.containers
        const map = objects.find(({ metadata }) => metadata.name === 'shop-cloakroom-check')
        const variables = container.env.map((variable: Manifest) => [variable.name, variable.value])
        let report = ''
        const output = { write: (words: string) => (report += words) }
        const io = { stdout: output, stderr: output, env: Object.fromEntries(variables) }
        const [command, ...args] = container.args
        assert.equal(command, 'check')
        const fromInput = args.map((arg: string) => (arg === '/etc/cloakroom/cloakroom.yaml' ? '-' : arg))
        const code = await checkCommand(fromInput, { ...io, readStdin: () => map.data['cloakroom.yaml'] })
        assert.equal(code, 0, report)
      })

      test('kubeconform knows every field', { skip: kubeconformMissing }, () => {
        const kubeconform = spawnSync(
          'kubeconform',
          [
            ...['-strict', '-summary', '-kubernetes-version', KUBERNETES],
            ...[
              '-schema-location',
              KUBECONFORM_SCHEMAS!,
              '-skip',
              'ScaledObject,GrafanaDashboard,ExternalSecret',
            ],
          ],
          { input: text, encoding: 'utf8' },
        )
        assert.equal(kubeconform.status, 0, kubeconform.stdout)
      })
    })
  }
})

function containersOf(spec: Manifest): Manifest[] {
  return [...(spec.initContainers ?? []), ...spec.containers]
}

/** Pod Security Standards, "restricted"; a read-only root file system is not in it, and ours all the same. */
function assertRestricted(spec: Manifest): void {
  const { securityContext, hostNetwork, hostPID, hostIPC, volumes } = spec
  assert.equal(securityContext.runAsNonRoot, true)
  assert.ok(securityContext.runAsUser > 0)
  assert.deepEqual(securityContext.seccompProfile, { type: 'RuntimeDefault' })
  assert.deepEqual([hostNetwork, hostPID, hostIPC], [undefined, undefined, undefined])
  assert.equal(spec.automountServiceAccountToken, false)
  const allowed = ['configMap', 'csi', 'downwardAPI', 'emptyDir', 'ephemeral', 'projected', 'secret']
  for (const volume of volumes)
    for (const type of Object.keys(volume).filter((key) => key !== 'name'))
      assert.ok(allowed.includes(type), type)
  for (const container of containersOf(spec)) {
    assert.equal(container.securityContext.allowPrivilegeEscalation, false)
    assert.equal(container.securityContext.readOnlyRootFilesystem, true)
    assert.equal(container.securityContext.privileged, undefined)
    assert.deepEqual(container.securityContext.capabilities, { drop: ['ALL'] })
    for (const port of container.ports ?? []) assert.equal(port.hostPort, undefined)
  }
}

function assertUnique(names: readonly string[]): void {
  assert.deepEqual(
    names.filter((name, at) => names.indexOf(name) !== at),
    [],
  )
}

/** Whether a pod has a file: as an item of a projected volume, or below a directory that is mounted whole. */
function isMounted(path: string, spec: Manifest): boolean {
  return spec.containers[0].volumeMounts.some((mount: Manifest) => {
    if (!path.startsWith(`${mount.mountPath}/`)) return false
    const volume = spec.volumes.find(({ name }: Manifest) => name === mount.name)
    if (!volume.projected) return true
    const items = volume.projected.sources.flatMap(({ secret }: Manifest) => secret.items)
    return items.some((item: Manifest) => `${mount.mountPath}/${item.path}` === path)
  })
}
