type Content = Record<string, unknown>

type Order = {
  readonly id: string
  readonly item: string
  readonly quantity: number
  readonly status: string
  readonly placed: string
}

const ORDERS: readonly Order[] = [
  { id: 'A-1042', item: 'Wool overcoat, charcoal', quantity: 1, status: 'shipped', placed: '2026-11-14' },
  { id: 'A-1047', item: 'Leather gloves, size 8', quantity: 2, status: 'packing', placed: '2026-11-17' },
  { id: 'A-1051', item: 'Umbrella, walnut handle', quantity: 1, status: 'placed', placed: '2026-11-19' },
]

/** What the orders API knows. */
export function ordersContent(): Content {
  return { api: 'orders', orders: ORDERS }
}

/** What the billing API knows; amounts in euro cents. */
export function billingContent(): Content {
  return {
    api: 'billing',
    currency: 'EUR',
    invoices: [
      { id: 'INV-2211', order: 'A-1042', amount: 28900, status: 'paid', due: '2026-11-28' },
      { id: 'INV-2216', order: 'A-1047', amount: 11800, status: 'open', due: '2026-12-01' },
      { id: 'INV-2220', order: 'A-1051', amount: 6450, status: 'open', due: '2026-12-03' },
    ],
  }
}
