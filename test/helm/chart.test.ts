import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parse } from 'yaml'
import { exampleValues, helmMissing, type Manifest, renderChart } from '../kit/chart.ts'

describe('the rendered chart', { skip: helmMissing }, () => {
  const { objects, error } = helmMissing
    ? { objects: [], error: '' }
    : renderChart('-n', 'shop', '-f', exampleValues)
  const one = (kind: string, name = 'shop-cloakroom'): Manifest =>
    objects.find((object) => object.kind === kind && object.metadata.name === name)
  const pod = (): Manifest => one('Deployment').spec.template
  const container = (): Manifest => pod().spec.containers[0]

  test('the example renders, every object in the namespace of the release', () => {
    assert.equal(error, '')
    assert.deepEqual(objects.map(({ kind }) => kind).sort(), [
      'ConfigMap',
      'Deployment',
      'Ingress',
      'PodDisruptionBudget',
      'Service',
      'Service',
      'ServiceAccount',
    ])
    for (const object of objects) assert.equal(object.metadata.namespace, 'shop', object.kind)
  })

  test('the pod meets the restricted Pod Security Standard', () => {
    const { securityContext, hostNetwork, hostPID, hostIPC, volumes } = pod().spec
    assert.equal(securityContext.runAsNonRoot, true)
    assert.equal(securityContext.runAsUser, 65532)
    assert.deepEqual(securityContext.seccompProfile, { type: 'RuntimeDefault' })
    assert.deepEqual([hostNetwork, hostPID, hostIPC], [undefined, undefined, undefined])
    assert.equal(container().securityContext.allowPrivilegeEscalation, false)
    assert.equal(container().securityContext.readOnlyRootFilesystem, true)
    assert.deepEqual(container().securityContext.capabilities, { drop: ['ALL'] })
    for (const volume of volumes) assert.equal(volume.hostPath, undefined)
  })

  test('the pod gets no token for the Kubernetes API', () => {
    assert.equal(pod().spec.automountServiceAccountToken, false)
    assert.equal(one('ServiceAccount').automountServiceAccountToken, false)
  })

  test('the probes ask the admin port, and liveness does not ask about dependencies', () => {
    assert.deepEqual(container().livenessProbe.httpGet, { path: '/livez', port: 'admin' })
    assert.deepEqual(container().startupProbe.httpGet, { path: '/livez', port: 'admin' })
    assert.deepEqual(container().readinessProbe.httpGet, { path: '/readyz', port: 'admin' })
    assert.deepEqual(
      container().ports.map((port: Manifest) => [port.name, port.containerPort]),
      [
        ['http', 8080],
        ['admin', 9090],
      ],
    )
  })

  test('a rollout never has fewer pods than replicas, and a drain takes one at a time', () => {
    assert.equal(one('Deployment').spec.replicas, 3)
    assert.equal(one('Deployment').spec.strategy.rollingUpdate.maxUnavailable, 0)
    assert.equal(one('PodDisruptionBudget').spec.maxUnavailable, 1)
    assert.ok(pod().spec.terminationGracePeriodSeconds > container().lifecycle.preStop.sleep.seconds)
  })

  test('every selector finds the pods', () => {
    const selectors = [
      one('Deployment').spec.selector.matchLabels,
      one('Service').spec.selector,
      one('Service', 'shop-cloakroom-admin').spec.selector,
      one('PodDisruptionBudget').spec.selector.matchLabels,
      ...pod().spec.topologySpreadConstraints.map((each: Manifest) => each.labelSelector.matchLabels),
    ]
    for (const selector of selectors)
      for (const [label, value] of Object.entries(selector)) assert.equal(pod().metadata.labels[label], value)
  })

  test('the admin port is on no Service but the headless one', () => {
    assert.deepEqual(
      one('Service').spec.ports.map((port: Manifest) => port.targetPort),
      ['http'],
    )
    assert.equal(one('Service', 'shop-cloakroom-admin').spec.clusterIP, 'None')
    assert.equal(one('Ingress').spec.rules[0].host, 'app.example.com')
    assert.deepEqual(one('Ingress').spec.rules[0].http.paths[0].backend.service.port, { name: 'http' })
  })

  test('the admin listener may be called by the names of its Service, beside those of the values', () => {
    const hosts = (...more: string[]): string[] => {
      const rendered = renderChart('-n', 'shop', '-f', exampleValues, ...more).objects
      const { data } = rendered.find(({ kind }) => kind === 'ConfigMap')
      return parse(data['cloakroom.yaml']).admin.hosts
    }
    const service = 'shop-cloakroom-admin'
    const names = [service, `${service}.shop`, `${service}.shop.svc`, `${service}.shop.svc.cluster.local`]
    assert.deepEqual(hosts(), names)
    assert.deepEqual(hosts('--set', 'config.admin.hosts={metrics.example.com}'), [
      ...names,
      'metrics.example.com',
    ])
    assert.equal(hosts('--set', 'clusterDomain=k8s.corp')[3], `${service}.shop.svc.k8s.corp`)
    assert.equal(hosts('--set', 'adminService.enabled=false'), undefined)
  })

  test('the config is a directory that follows the ConfigMap, and a changed one makes new pods', () => {
    const mount = container().volumeMounts.find((each: Manifest) => each.name === 'config')
    assert.deepEqual(mount, { name: 'config', mountPath: '/etc/cloakroom', readOnly: true })
    assert.equal(container().env[0].value, '/etc/cloakroom/cloakroom.yaml')
    const changed = renderChart('-f', exampleValues, '--set', 'config.basePath=/auth').objects
    const checksum = (deployment: Manifest) =>
      deployment.spec.template.metadata.annotations['checksum/config']
    assert.match(checksum(one('Deployment')), /^[0-9a-f]{64}$/)
    assert.notEqual(checksum(changed.find(({ kind }) => kind === 'Deployment')), checksum(one('Deployment')))
  })

  test('the ConfigMap names secrets as files that the pod mounts, and holds none', () => {
    const config = parse(one('ConfigMap').data['cloakroom.yaml'])
    const named = [
      config.provider.clientAuth.secret,
      config.session.store.password,
      ...config.session.keys,
    ].map((secret: Manifest) => {
      assert.deepEqual(Object.keys(secret), ['file'])
      return secret.file
    })
    const volume = pod().spec.volumes.find((each: Manifest) => each.name === 'secrets').secret
    const mounted = volume.items.map((item: Manifest) => `/run/secrets/${item.path}`)
    assert.deepEqual(named.sort(), mounted.sort())
    assert.equal(volume.secretName, 'cloakroom')
    assert.equal(volume.defaultMode, 0o440)
    assert.deepEqual(
      objects.filter(({ kind }) => kind === 'Secret'),
      [],
    )
  })

  test('one replica has no disruption budget, which could only block a drain', () => {
    const { objects: single } = renderChart('-f', exampleValues, '--set', 'replicas=1')
    assert.equal(
      single.some(({ kind }) => kind === 'PodDisruptionBudget'),
      false,
    )
  })
})

describe('the chart refuses', { skip: helmMissing }, () => {
  test('the bare defaults, and names everything that is missing at once', () => {
    const { error } = renderChart()
    for (const path of [
      'secrets.existingSecret',
      'config.publicUrl',
      'config.provider.issuer',
      'config.provider.clientId',
      'config.session.store.url',
      'config.routes',
    ])
      assert.match(error, new RegExp(`- ${path}: `), path)
  })

  const refusals: [string, string, RegExp][] = [
    ['no Secret', 'secrets.existingSecret=', /secrets\.existingSecret: name the Secret/],
    ['no public URL', 'config.publicUrl=', /config\.publicUrl: .* e\.g\. https:/],
    [
      'a memory store for several replicas',
      'config.session.store.type=memory',
      /memory is not shared between 3/,
    ],
    [
      'a client secret in values',
      'config.provider.clientAuth.secret=s3cret',
      /clientAuth\.secret: .*ConfigMap/,
    ],
    ['a session key in values', 'config.session.keys[0]=s3cret', /session\.keys\[0\]: .*ConfigMap/],
    ['a password in the Redis URL', 'config.session.store.url=redis://u:s3cret@redis', /holds a password/],
    ['a private key anywhere', 'config.routes[0].tls.key=-----BEGIN PRIVATE KEY-----', /holds a private key/],
    ['a port that only the system knows', 'config.listen=0.0.0.0:0', /config\.listen: must be host:port/],
    ['a misspelt value', 'replicaCount=3', /'?replicaCount'? (?:is )?not allowed/],
    [
      'an end before the last request',
      'terminationGracePeriodSeconds=5',
      /terminationGracePeriodSeconds: must/,
    ],
  ]
  for (const [what, value, message] of refusals)
    test(what, () => {
      const { error } = renderChart('-f', exampleValues, '--set', value)
      assert.match(error, message)
      assert.doesNotMatch(error, /s3cret/)
    })
})
