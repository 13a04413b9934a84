import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { parse } from 'yaml'
import {
  chartNotes,
  exampleValues,
  helmMissing,
  type Manifest,
  renderChart,
  renderExample,
} from '../kit/chart.ts'

/** One object of a kind, of the example with other values. */
function rendered(kind: string, ...sets: string[]): Manifest {
  const { objects, error } = renderExample(...sets)
  assert.equal(error, '')
  return objects.find((object) => object.kind === kind && !isHook(object))
}

const isHook = (object: Manifest): boolean => 'helm.sh/hook' in (object.metadata.annotations ?? {})
const configIn = (map: Manifest): Manifest => parse(map.data['cloakroom.yaml'])

describe('the rendered chart', { skip: helmMissing }, () => {
  const { objects, error } = helmMissing
    ? { objects: [], error: '' }
    : renderChart('-n', 'shop', '-f', exampleValues)
  const one = (kind: string, name?: string): Manifest =>
    objects.find(
      (object) =>
        object.kind === kind &&
        !isHook(object) &&
        (kind === 'ConfigMap' || object.metadata.name === (name ?? 'shop-cloakroom')),
    )
  const pod = (): Manifest => one('Deployment').spec.template
  const container = (): Manifest => pod().spec.containers[0]

  test('the example renders, every object in the namespace of the release', () => {
    assert.equal(error, '')
    assert.deepEqual(objects.map(({ kind }) => kind).sort(), [
      'ConfigMap',
      'ConfigMap',
      'Deployment',
      'Ingress',
      'Job',
      'NetworkPolicy',
      'Pod',
      'PodDisruptionBudget',
      'Service',
      'Service',
      'ServiceAccount',
    ])
    for (const object of objects) assert.equal(object.metadata.namespace, 'shop', object.kind)
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
    assert.equal(container().lifecycle, undefined)
    assert.equal(configIn(one('ConfigMap')).drainDelay, '5s')
    assert.ok(pod().spec.terminationGracePeriodSeconds >= 5 + 25 + 13)
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
      const { objects } = renderChart('-n', 'shop', '-f', exampleValues, ...more)
      return configIn(objects.find((object) => object.kind === 'ConfigMap' && !isHook(object))).admin.hosts
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

  test('the config is a directory, because a file of its own would never see an update', () => {
    const mount = container().volumeMounts.find((each: Manifest) => each.name === 'config')
    assert.deepEqual(mount, { name: 'config', mountPath: '/etc/cloakroom', readOnly: true })
    assert.equal(container().env[0].value, '/etc/cloakroom/cloakroom.yaml')
  })

  test('each config has an immutable ConfigMap of its own, which stays for the pods that began with it', () => {
    const before = one('ConfigMap')
    const after = rendered('ConfigMap', 'config.basePath=/auth')
    assert.match(before.metadata.name, /^shop-cloakroom-[0-9a-f]{10}$/)
    assert.notEqual(after.metadata.name, before.metadata.name)
    for (const map of [before, after]) {
      assert.equal(map.immutable, true)
      assert.equal(map.metadata.annotations['helm.sh/resource-policy'], 'keep')
    }
    const mounted = (deployment: Manifest) => deployment.spec.template.spec.volumes[0].configMap.name
    assert.equal(mounted(one('Deployment')), before.metadata.name)
    assert.equal(mounted(rendered('Deployment', 'config.basePath=/auth')), after.metadata.name)
    assert.equal(rendered('ConfigMap', 'replicas=5').metadata.name, before.metadata.name)
  })

  test('reload hot: one ConfigMap that changes under the pods, and new pods only for what a start decides', () => {
    const hot = (...sets: string[]) => rendered('Deployment', 'reload=hot', ...sets).spec.template
    const map = rendered('ConfigMap', 'reload=hot')
    assert.equal(map.metadata.name, 'shop-cloakroom')
    assert.equal(map.immutable, undefined)
    assert.deepEqual(hot('config.basePath=/auth'), hot())
    for (const restart of ['config.session.store.keyPrefix=x', 'config.limits.connections=5'])
      assert.notDeepEqual(hot(restart).metadata.annotations, hot().metadata.annotations, restart)
  })

  test('a hook checks the same config before anything of the release changes', () => {
    const hooks = objects.filter(isHook).filter(({ kind }) => kind !== 'Pod')
    assert.deepEqual(
      hooks.map(({ kind }) => kind),
      ['ConfigMap', 'Job'],
    )
    const [map, job] = hooks
    for (const hook of hooks)
      assert.equal(hook.metadata.annotations['helm.sh/hook'], 'pre-install,pre-upgrade,pre-rollback')
    assert.ok(
      map.metadata.annotations['helm.sh/hook-weight'] - job.metadata.annotations['helm.sh/hook-weight'] < 0,
    )
    assert.deepEqual(map.data, one('ConfigMap').data)
    const { spec } = job.spec.template
    assert.equal(job.spec.backoffLimit, 0)
    assert.equal(spec.volumes[0].configMap.name, map.metadata.name)
    assert.deepEqual(spec.containers[0].args.slice(0, 2), ['check', '--no-secrets'])
    // Nothing of the release is there yet at the first installation.
    assert.equal(spec.serviceAccountName, undefined)
  })

  test('helm test runs the doctor in a pod like the others, which no Service finds', () => {
    const doctor = objects.find(({ kind }) => kind === 'Pod')
    assert.equal(doctor.metadata.annotations['helm.sh/hook'], 'test')
    // `helm test --logs` reads the log when the test is over, and fails when a policy has deleted the pod.
    assert.equal(doctor.metadata.annotations['helm.sh/hook-delete-policy'], 'before-hook-creation')
    assert.deepEqual(doctor.spec.containers[0].args, ['doctor'])
    assert.deepEqual(doctor.spec.volumes, pod().spec.volumes)
    assert.deepEqual(doctor.spec.containers[0].env, container().env)
    const selector = Object.entries(one('Service').spec.selector)
    assert.ok(selector.some(([label, value]) => doctor.metadata.labels[label] !== value))
    const [[label, value] = []] = Object.entries<string>(one('NetworkPolicy').spec.podSelector.matchLabels)
    assert.deepEqual([doctor.metadata.labels[label!], pod().metadata.labels[label!]], [value, value])
  })

  test('the heap is bounded below the memory limit, in whatever unit that is', () => {
    const options = (memory: string) =>
      rendered('Deployment', `resources.limits.memory=${memory}`).spec.template.spec.containers[0].env.find(
        ({ name }: Manifest) => name === 'NODE_OPTIONS',
      )?.value
    assert.equal(options('512Mi'), '--max-old-space-size=332')
    assert.equal(options('1.5Gi'), '--max-old-space-size=998')
    assert.equal(options('1G'), '--max-old-space-size=619')
    assert.equal(options('536870912'), '--max-old-space-size=332')
    assert.equal(options('null'), undefined)
  })

  test('the ConfigMap names secrets as files that the pod mounts, and holds none', () => {
    const config = configIn(one('ConfigMap'))
    const named = [
      config.provider.clientAuth.secret,
      config.session.store.password,
      ...config.session.keys,
    ].map((secret: Manifest) => {
      assert.deepEqual(Object.keys(secret), ['file'])
      return secret.file
    })
    const volume = pod().spec.volumes.find((each: Manifest) => each.name === 'secrets').projected
    const [{ secret }] = volume.sources
    const mounted = secret.items.map((item: Manifest) => `/run/secrets/${item.path}`)
    assert.deepEqual(named.sort(), mounted.sort())
    assert.equal(secret.name, 'cloakroom')
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

describe('values of the chart', { skip: helmMissing }, () => {
  test('whatever scales the Deployment has its number of replicas to itself', () => {
    assert.equal(rendered('Deployment', 'replicas=null').spec.replicas, undefined)
    assert.equal(rendered('Deployment', 'autoscaling.enabled=true').spec.replicas, undefined)
    const scaler = rendered('HorizontalPodAutoscaler', 'autoscaling.enabled=true').spec
    assert.deepEqual([scaler.minReplicas, scaler.maxReplicas], [2, 10])
    assert.equal(scaler.scaleTargetRef.name, 'shop-cloakroom')
    assert.equal(scaler.metrics[0].resource.target.averageUtilization, 70)
    assert.equal(scaler.behavior.scaleDown.stabilizationWindowSeconds, 300)
  })

  test('the budget goes by the fewest pods there can be', () => {
    const one = ['autoscaling.enabled=true', 'autoscaling.minReplicas=1']
    assert.equal(rendered('PodDisruptionBudget', ...one), undefined)
    assert.ok(rendered('PodDisruptionBudget', 'autoscaling.enabled=true', 'replicas=1'))
  })

  test('what one store or client authentication needs never reaches another', () => {
    const memory = ['replicas=1', 'config.session.store={"type":"memory","url":null,"password":null}']
    assert.deepEqual(configIn(rendered('ConfigMap', ...memory)).session.store, { type: 'memory' })
    const { clientAuth } = configIn(
      rendered('ConfigMap', 'config.provider.clientAuth={"method":"none"}'),
    ).provider
    assert.deepEqual(clientAuth, { method: 'none' })
    const { spec } = rendered('Deployment', 'config.provider.clientAuth={"method":"none"}').spec.template
    const volume = spec.volumes.find(({ name }: Manifest) => name === 'secrets').projected
    const files = volume.sources[0].secret.items.map(({ path }: Manifest) => path)
    assert.deepEqual(files, ['redis-password', 'session-key', 'session-key-2'])
  })

  test('the NetworkPolicy lets pods reach what the config names, and nothing else', () => {
    const egress = (...sets: string[]): Manifest[] => rendered('NetworkPolicy', ...sets).spec.egress
    const [dns, shop, outside, ...rest] = egress()
    assert.deepEqual(dns.ports, [
      { port: 53, protocol: 'UDP' },
      { port: 53, protocol: 'TCP' },
    ])
    const inNamespace = (name: string) => [
      { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': name } } },
    ]
    assert.deepEqual(shop, { to: inNamespace('shop') })
    assert.deepEqual(outside.ports, [{ port: 443, protocol: 'TCP' }])
    assert.deepEqual(outside.to[0].ipBlock.except, ['169.254.0.0/16'])
    assert.deepEqual(rest, [])

    const routes = [
      'http://a.one.svc',
      'http://b.two.svc.cluster.local:81',
      'http://c:82',
      'http://10.1.2.3:83',
      'http://[fd00::1]:84',
      'http://localhost:85',
      'https://api.example.com:8443',
    ].map((upstream, at) => ({ path: `/${at}`, upstream, auth: 'anonymous' }))
    const rules = egress(`config.routes=${JSON.stringify(routes)}`, 'config.tests=[]').slice(1)
    assert.deepEqual(
      rules.slice(0, 3).map(({ to }) => to),
      ['one', 'shop', 'two'].map(inNamespace),
    )
    assert.deepEqual(
      rules.slice(3, 5).map(({ to, ports }) => [to[0].ipBlock.cidr, ports[0].port]),
      [
        ['10.1.2.3/32', 83],
        ['fd00::1/128', 84],
      ],
    )
    assert.deepEqual(
      rules[5].ports.map(({ port }: Manifest) => port),
      [443, 8443],
    )
    assert.equal(rules.length, 6)
  })

  test('the NetworkPolicy shuts the admin port to all but monitoring and its own namespace', () => {
    const [http, admin] = rendered('NetworkPolicy').spec.ingress
    assert.deepEqual([http.ports[0].port, http.from], ['http', undefined])
    assert.equal(admin.ports[0].port, 'admin')
    assert.equal(admin.from.length, 2)
  })

  test('an alert can be left out, or have another threshold; the others link to the runbook', () => {
    const { objects } = renderExample(
      'apiCheck=false',
      'prometheusRule.enabled=true',
      'prometheusRule.disabled=["CloakroomNoSignIns"]',
      'prometheusRule.overrides={"CloakroomSlow":{"for":"30m","labels":{"severity":"info"}}}',
      'prometheusRule.runbookUrlPrefix=https://wiki.example.com/x',
    )
    const { groups } = objects.find(({ kind }) => kind === 'PrometheusRule').spec
    const rules: Manifest[] = groups.flatMap((group: Manifest) => group.rules)
    assert.ok(!rules.some(({ alert }) => alert === 'CloakroomNoSignIns'))
    const slow = rules.find(({ alert }) => alert === 'CloakroomSlow')
    assert.deepEqual([slow.for, slow.labels.severity], ['30m', 'info'])
    for (const { alert, annotations, expr } of rules) {
      assert.equal(annotations.runbook_url, `https://wiki.example.com/x#${alert.toLowerCase()}`)
      assert.ok(expr)
    }
  })

  test('the dashboard arrives whole, for the sidecar and for the operator', () => {
    const dashboard = (...sets: string[]) =>
      renderExample('apiCheck=false', 'dashboard.enabled=true', ...sets).objects.find(({ metadata }) =>
        metadata.name.endsWith('-dashboard'),
      )
    const sidecar = dashboard()
    assert.equal(sidecar.metadata.labels.grafana_dashboard, '1')
    const operator = dashboard('dashboard.kind=GrafanaDashboard')
    assert.equal(operator.spec.json, sidecar.data['cloakroom.json'])
    assert.ok(JSON.parse(operator.spec.json).panels.length > 5)
  })

  test('the notes tell what to register and what to watch out for', () => {
    const notes = (...sets: string[]) =>
      chartNotes('-n', 'shop', '-f', exampleValues, ...sets.flatMap((set) => ['--set', set]))
    const plain = notes()
    assert.match(plain, /https:\/\/app\.example\.com\/bff\/callback/)
    assert.match(plain, /https:\/\/app\.example\.com\/bff\/logged-out/)
    assert.match(plain, / {5}session-key-2\n/)
    assert.doesNotMatch(plain, /WARNING/)
    for (const [set, warning] of [
      ['replicas=1', /one replica/],
      ['networkPolicy.enabled=false', /networkPolicy is off/],
      ['config.trustProxy=null', /trustProxy is empty/],
      ['ingress.tlsSecretName=', /no certificate/],
      ['config.session.store.url=redis://redis', /without TLS/],
    ] as const)
      assert.match(notes(set), warning, set)
    assert.match(notes('reload=hot', 'configCheck.enabled=false'), /reload is hot/)
    assert.match(
      notes(
        'config.session.store.type=memory',
        'config.session.store.url=null',
        'config.session.store.password=null',
        'replicas=1',
      ),
      /signs everybody out/,
    )
    assert.match(
      notes('demoValkey.enabled=true', 'config.session.store.url=null', 'config.session.store.password=null'),
      /NOT FOR PRODUCTION/,
    )
  })

  test('the Valkey for trying out is found by its own Service, and by no other', () => {
    const { objects } = renderExample(
      ...['demoValkey.enabled=true', 'config.session.store.url=null', 'config.session.store.password=null'],
    )
    const named = (kind: string, name: string) =>
      objects.find((object) => object.kind === kind && object.metadata.name === name)
    const labels = named('Deployment', 'shop-cloakroom-valkey').spec.template.metadata.labels
    const finds = (selector: Manifest) =>
      Object.entries(selector).every(([label, value]) => labels[label] === value)
    assert.ok(finds(named('Service', 'shop-cloakroom-valkey').spec.selector))
    assert.ok(finds(named('NetworkPolicy', 'shop-cloakroom-valkey').spec.podSelector.matchLabels))
    for (const name of ['shop-cloakroom', 'shop-cloakroom-admin'])
      assert.ok(!finds(named('Service', name).spec.selector), name)
    assert.ok(!finds(named('Deployment', 'shop-cloakroom').spec.selector.matchLabels))
    const map = objects.find(({ kind, data }) => kind === 'ConfigMap' && data['cloakroom.yaml'])
    assert.equal(configIn(map).session.store.url, 'redis://shop-cloakroom-valkey:6379')
  })
})

describe('the templates', () => {
  test('know the namespace of the release in one place, but for the notes', () => {
    const folder = new URL('../../helm/cloakroom/templates/', import.meta.url)
    const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) =>
      /\.(tpl|yaml)$/.test(file),
    )
    const uses = files.filter((file) =>
      readFileSync(new URL(file, folder), 'utf8').includes('.Release.Namespace'),
    )
    assert.deepEqual(uses, ['_names.tpl'])
  })
})
