import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { configJsonSchema } from '../../src/config/schema/schema.ts'
import { helmMissing, renderChart, renderExample } from '../kit/chart.ts'

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
    [
      'a public URL that is no origin',
      'config.publicUrl=app.example.com',
      /config\.publicUrl: must be an origin/,
    ],
    // biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of the config.
    ['a host that only the environment knows', 'config.publicUrl=${URL}', /config\.publicUrl: is a variable/],
    [
      'a password in the URL of an upstream',
      'config.routes=[{"path":"/","upstream":"https://u:s3cret@spa","auth":"anonymous"}]',
      /config: a URL holds a password/,
    ],
    ['no public URL', 'config.publicUrl=', /config\.publicUrl: .* e\.g\. https:/],
    [
      'a memory store for several replicas',
      'config.session.store={"type":"memory","url":null,"password":null}',
      /memory is not shared between 3/,
    ],
    [
      'a memory store that is scaled',
      'autoscaling={"enabled":true},config.session.store={"type":"memory","url":null,"password":null}',
      /memory is not shared between 10/,
    ],
    [
      'two autoscalers',
      'autoscaling.enabled=true,keda.enabled=true,keda.triggers[0].type=cpu',
      /keda\.enabled: /,
    ],
    [
      'a Redis of its own beside the one for trying out',
      'demoValkey.enabled=true',
      /demoValkey\.enabled: and a store/,
    ],
    ['KEDA without a trigger', 'keda.enabled=true', /keda\.triggers: by what/],
    [
      'fewer pods at most than at least',
      'autoscaling.enabled=true,autoscaling.maxReplicas=1',
      /autoscaling\.minReplicas: 2 is more than maxReplicas, 1/,
    ],
    [
      'scaling by CPU without a request',
      'autoscaling.enabled=true,resources.requests.cpu=null',
      /resources\.requests\.cpu, which is missing/,
    ],
    ['a variable twice', 'extraEnv[0].name=A,extraEnv[1].name=A', /extraEnv: A is there twice/],
    ["the chart's own variable", 'extraEnv[0].name=CLOAKROOM_CONFIG', /CLOAKROOM_CONFIG is there twice/],
    [
      'a variable that is nowhere',
      'config.session.keys=[{"env":"KEY"}]',
      /extraEnv: the config reads the variable KEY/,
    ],
    ['a volume twice', 'extraVolumes[0].name=config', /extraVolumes: a volume config/],
    ['a path twice', 'extraVolumeMounts[0].mountPath=/etc/cloakroom', /mounted at \/etc\/cloakroom already/],
    [
      'one file of two Secrets',
      'secrets.files.a=a,secrets.additional[0].name=x,secrets.additional[0].files.a=b',
      /two Secrets bring the file a/,
    ],
    ['a vault and a Secret', 'secrets.secretProviderClass=vault', /in place of existingSecret/],
    [
      'workload identity where its token cannot be mounted',
      'config.provider.clientAuth={"method":"workload_identity"}',
      /secrets\.mountPath: workload identity/,
    ],
    ['less memory than a replica at rest has', 'resources.limits.memory=128Mi', /128Mi is too little/],
    [
      'two monitors of one thing',
      'apiCheck=false,serviceMonitor.enabled=true,podMonitor.enabled=true',
      /podMonitor\.enabled: beside/,
    ],
    [
      'a monitor of a Service that is off',
      'apiCheck=false,serviceMonitor.enabled=true,adminService.enabled=false',
      /adminService, which is off/,
    ],
    [
      'a monitor that the cluster does not know',
      'serviceMonitor.enabled=true',
      /does not know monitoring\.coreos\.com/,
    ],
    ['an HTTPRoute to no Gateway', 'httpRoute.enabled=true', /httpRoute\.parentRefs: which Gateway/],
    ['plain http behind an Ingress', 'config.publicUrl=http://app.example.com', /over https only/],
    [
      'a resource of two teams',
      'configParts.a.resources.x.scopes[0]=x,configParts.b.resources.x.scopes[0]=x',
      /configParts\.b\.resources\.x: is defined elsewhere/,
    ],
    [
      'a drain that is longer than the grace period',
      'config.drainDelay=30s',
      /terminationGracePeriodSeconds: must be at least 68/,
    ],
    [
      'a misspelt key of a route',
      'config.routes[0].upsteam=http://a',
      /additional properties 'upsteam' not allowed/,
    ],
    ['a misspelt key of the config', 'config.sesion.keys=x', /additional properties 'sesion' not allowed/],
    ['a misspelt key of a part', 'configParts.a.route=x', /additional properties 'route' not allowed/],
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
      /terminationGracePeriodSeconds: must be at least 43/,
    ],
  ]
  for (const [what, value, message] of refusals)
    test(what, () => {
      const { error } = renderExample(...value.split(/,(?=[\w.[\]]+=)/))
      assert.match(error, message)
      assert.doesNotMatch(error, /s3cret/)
    })
})

describe('a later values file', { skip: helmMissing }, () => {
  test('takes back by null what an earlier one has set', () => {
    const sets = ['config.resources.billing=null', 'configParts.a=null', 'config.session.store.password=null']
    const routes = '[{"path":"/api/orders","upstream":"http://a","resource":"orders"}]'
    const { error, text } = renderExample(...sets, `config.routes=${routes}`, 'config.tests=[]')
    assert.equal(error, '')
    assert.doesNotMatch(text, /billing|redis-password|null/)
  })
})

describe('a secret written into the values', { skip: helmMissing }, () => {
  for (const path of secretPaths(configJsonSchema(), 'config'))
    test(`is refused at ${path}`, () => {
      const value = /key$/.test(path) ? '-----BEGIN PRIVATE KEY----- s3cret' : 's3cret'
      const sets = [`${path}=${value}`]
      if (path.includes('sharedSignals'))
        sets.push(
          'config.provider.sharedSignals.transmitter=https://a',
          'config.provider.sharedSignals.audience=https://b',
        )
      if (path.includes('clientAuth.key')) sets.push('config.provider.clientAuth.method=private_key_jwt')
      const { error } = renderExample(...sets)
      assert.match(error, /would stand in the ConfigMap/)
      assert.doesNotMatch(error, /s3cret/)
    })
})

type Schema = { [key: string]: unknown }

/** Where the config has secrets, in the words of `--set`. Certificates are none. */
function secretPaths(schema: unknown, path: string): string[] {
  const { $ref, properties, oneOf, anyOf, items } = schema as Schema
  if ($ref) return /\.(?:ca|cert|certificate)$/.test(path) ? [] : [path]
  const members = Object.entries((properties ?? {}) as Schema).flatMap(([key, child]) =>
    secretPaths(child, `${path}.${key}`),
  )
  const choices = [...((oneOf ?? []) as Schema[]), ...((anyOf ?? []) as Schema[])]
  const chosen = choices.flatMap((choice) => secretPaths(choice, path))
  const listed = items ? secretPaths(items, `${path}[0]`) : []
  return [...new Set([...members, ...chosen, ...listed])]
}
