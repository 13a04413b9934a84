import { createHash } from 'node:crypto'

/** A CycloneDX component, as far as it is read here. */
export type Component = {
  readonly 'bom-ref': string
  readonly type: string
  readonly name: string
  readonly version?: string
  readonly purl?: string
  readonly cpe?: string
  readonly [key: string]: unknown
}

/** A CycloneDX document, as far as it is read here. */
export type Bom = {
  readonly specVersion: string
  readonly serialNumber: string
  readonly metadata: { readonly component: Component; readonly [key: string]: unknown }
  readonly components: readonly Component[]
  readonly dependencies: readonly { readonly ref: string; readonly dependsOn?: readonly string[] }[]
  readonly [key: string]: unknown
}

/** What is known of an image beside its packages. */
export type ImageParts = {
  /** Of the packages that are in it, as `name@version`. */
  readonly shipped: ReadonlySet<string>
  /** `process.versions` of its Node.js. */
  readonly node: Readonly<Record<string, string>>
  /** The name of its base. */
  readonly base: string
  /** Texts of the base's `/var/lib/dpkg/status.d`: a package each. */
  readonly debian: readonly string[]
  /** Epoch seconds: that of the sources, so that the same sources give the same document. */
  readonly epoch: number
}

/**
 * The SBOM of an image (CycloneDX): npm's of the lock file without what was pruned, Node.js with the libraries that it
 * brings, and the packages of the base. The same parts give the same bytes.
 *
 * @throws when a package is shipped that npm does not list.
 */
export function imageSbom(npm: Bom, parts: ImageParts): Bom {
  const packages = npm.components.filter(({ name, version }) => parts.shipped.has(`${name}@${version}`))
  const listed = new Set(packages.map(({ name, version }) => `${name}@${version}`))
  const missing = [...parts.shipped].filter((each) => !listed.has(each))
  if (missing.length > 0) throw new Error(`these are shipped and not in npm's SBOM: ${missing.join(', ')}`)
  const node = nodeComponent(parts.node)
  const debian = parts.debian.flatMap(debianComponents)
  const root = rootComponent(npm.metadata.component)
  const components = [...packages, node, ...debian]
  const known = new Set(packages.map((component) => component['bom-ref']))
  const dependencies = npm.dependencies
    .filter(({ ref }) => ref === root['bom-ref'] || known.has(ref))
    .map(({ ref, dependsOn = [] }) => ({ ref, dependsOn: dependsOn.filter((other) => known.has(other)) }))
  const body = {
    metadata: {
      ...npm.metadata,
      timestamp: new Date(parts.epoch * 1000).toISOString(),
      lifecycles: [{ phase: 'post-build' }],
      component: root,
    },
    components,
    dependencies: dependencies.map((each) =>
      each.ref === root['bom-ref']
        ? { ...each, dependsOn: [...each.dependsOn, node['bom-ref'], ...debian.map((one) => one['bom-ref'])] }
        : each,
    ),
    compositions: [
      { aggregate: 'complete', assemblies: [...known, node['bom-ref']] },
      // A base that tells of no packages has some all the same.
      {
        aggregate: debian.length > 0 ? 'complete' : 'unknown',
        assemblies: [root['bom-ref'], ...debian.map((one) => one['bom-ref'])],
      },
    ],
  }
  const { $schema, bomFormat, specVersion, version } = npm
  return { $schema, bomFormat, specVersion, serialNumber: uuidOf(JSON.stringify(body)), version, ...body }
}

/** A version-8 UUID (RFC 9562 §5.8) of a text: a name for the document that changes only when its content does. */
function uuidOf(text: string): string {
  const hex = createHash('sha256').update(text).digest('hex')
  const variant = ((Number.parseInt(hex[16]!, 16) & 0x3) | 0x8).toString(16)
  const groups = [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `${variant}${hex.slice(17, 20)}`,
  ]
  return `urn:uuid:${[...groups, hex.slice(20, 32)].join('-')}`
}

function rootComponent(component: Component): Component {
  const { purl, ...rest } = component
  return {
    ...rest,
    type: 'container',
    name: 'cloakroom',
    purl: `pkg:oci/cloakroom`,
    properties: [{ name: 'npm', value: purl }],
  }
}

/** Node.js, under the names by which vulnerability databases know it, with what is compiled into it. */
function nodeComponent(versions: Readonly<Record<string, string>>): Component {
  const { node = 'unknown', ...libraries } = versions
  const isLibrary = ([name]: [string, string]) => !['modules', 'napi', 'unicode', 'cldr', 'tz'].includes(name)
  return {
    'bom-ref': `node@${node}`,
    type: 'platform',
    name: 'node',
    version: node,
    purl: `pkg:generic/node@${node}`,
    cpe: `cpe:2.3:a:nodejs:node.js:${node}:*:*:*:lts:*:*:*`,
    licenses: [{ license: { id: 'MIT' } }],
    components: Object.entries(libraries)
      .filter(isLibrary)
      .map(([name, version]) => ({ type: 'library', 'bom-ref': `node@${node}/${name}`, name, version })),
  }
}

/** A package of Debian, from its control text; a text without a name and version is none. */
function debianComponents(control: string): Component[] {
  const field = (name: string) => new RegExp(`^${name}: (.+)$`, 'm').exec(control)?.[1]
  const [name, version, architecture] = [field('Package'), field('Version'), field('Architecture')]
  if (name === undefined || version === undefined) return []
  const purl = `pkg:deb/debian/${name}@${encodeURIComponent(version)}${architecture ? `?arch=${architecture}` : ''}`
  return [{ 'bom-ref': purl, type: 'library', name, version, purl }]
}
