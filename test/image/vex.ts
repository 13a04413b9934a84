import type { Bom } from './sbom.ts'

/** CycloneDX `impactAnalysisState`, without those that judge nothing. */
const STATES = ['resolved', 'exploitable', 'in_triage', 'false_positive', 'not_affected']

/** CycloneDX `impactAnalysisJustification`. */
const JUSTIFICATIONS = [
  ...['code_not_present', 'code_not_reachable', 'requires_configuration', 'requires_dependency'],
  ...['requires_environment', 'protected_by_compiler', 'protected_at_runtime', 'protected_at_perimeter'],
  'protected_by_mitigating_control',
]

/** What a person found about one vulnerability of one part: an entry of helm/vex.json. */
export type Statement = {
  /** Of a database: `CVE-…` or `GHSA-…`. */
  readonly id: string
  /** The part, as `name@version`. */
  readonly component: string
  readonly state: string
  /** Why not, where `state` is `not_affected`. */
  readonly justification?: string
  /** For a reader: what was looked at, and what follows. */
  readonly detail: string
}

/** What is wrong with a list of statements, a line each: every one names a part of the SBOM, and says why. */
export function statementProblems(statements: readonly Statement[], parts: ReadonlySet<string>): string[] {
  return statements.flatMap(({ id, component, state, justification, detail }) => [
    ...(/^(CVE-\d{4}-\d{4,}|GHSA(-[23456789cfghjmpqrvwx]{4}){3})$/.test(id)
      ? []
      : [`${id}: is no CVE or GHSA id`]),
    ...(parts.has(component) ? [] : [`${id}: ${component} is no part of the image: remove the statement`]),
    ...(STATES.includes(state) ? [] : [`${id}: state ${state} is none of ${STATES.join(', ')}`]),
    ...(state !== 'not_affected' || JUSTIFICATIONS.includes(justification ?? '')
      ? []
      : [`${id}: not_affected needs a justification: ${JUSTIFICATIONS.join(', ')}`]),
    ...(detail?.trim() ? [] : [`${id}: says nothing in detail`]),
  ])
}

/** What statements may name of an SBOM: its components, and those within them, as `name@version`. */
export function partsOf(bom: Pick<Bom, 'components'>): ReadonlySet<string> {
  type Named = { name: string; version?: string; components?: Named[] }
  const names = ({ name, version, components = [] }: Named): string[] => [
    `${name}@${version}`,
    ...components.flatMap(names),
  ]
  return new Set((bom.components as unknown as Named[]).flatMap(names))
}

/** The VEX document of an image (CycloneDX), whose statements point into its SBOM by BOM-Link. */
export function vexDocument(statements: readonly Statement[], sbom: Bom) {
  const link = (component: string) =>
    `${sbom.serialNumber.replace('urn:uuid:', 'urn:cdx:')}/1#${encodeURIComponent(component)}`
  return {
    $schema: sbom.$schema,
    bomFormat: 'CycloneDX',
    specVersion: sbom.specVersion,
    version: 1,
    metadata: { timestamp: sbom.metadata.timestamp, component: sbom.metadata.component },
    vulnerabilities: statements.map(({ id, component, state, justification, detail }) => ({
      id,
      analysis: { state, ...(justification && { justification }), detail },
      affects: [{ ref: link(component) }],
    })),
  }
}

/** The answer of `npm audit --json`, as far as it is read. */
export type Audit = {
  readonly vulnerabilities: Readonly<
    Record<string, { readonly via: readonly (string | { readonly url?: string; readonly name?: string })[] }>
  >
}

/** Advisories about parts of the image that no statement speaks of, as `GHSA-… (package)`. */
export function unassessed(audit: Audit, statements: readonly Statement[], parts: ReadonlySet<string>) {
  const names = new Set([...parts].map((part) => part.slice(0, part.lastIndexOf('@'))))
  const stated = new Set(statements.map(({ id }) => id))
  const advisories = Object.entries(audit.vulnerabilities).flatMap(([name, { via }]) =>
    via.flatMap((each) => {
      const id = typeof each === 'string' ? undefined : each.url?.split('/').at(-1)
      return id === undefined || stated.has(id) || !names.has(name) ? [] : [`${id} (${name})`]
    }),
  )
  return [...new Set(advisories)].sort()
}
