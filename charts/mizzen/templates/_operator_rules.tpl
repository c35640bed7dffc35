{{/* What the operator may do; with "get gateways" a test holds it equal to mizzen_operator.cluster.PERMISSIONS. */}}
{{- define "mizzen.operatorRules" -}}
- apiGroups: [mizzen.dev]
  resources: [datasets, searchjobs, trainingjobs, modelservices]
  verbs: [get, list, watch, delete]
- apiGroups: [mizzen.dev]
  resources: [datasets/status, searchjobs/status, trainingjobs/status, modelservices/status]
  verbs: [patch]
# Where OwnerReferencesPermissionEnforcement is on, blockOwnerDeletion in a child needs it.
- apiGroups: [mizzen.dev]
  resources: [datasets/finalizers, searchjobs/finalizers, trainingjobs/finalizers, modelservices/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [secrets, persistentvolumeclaims]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create] # list: why a Job's pods cannot be created
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch]
{{- end -}}

{{/* Where services answer. The Gateway is in a namespace of its own, which need not be a watched one. */}}
{{- define "mizzen.operatorGatewayRules" -}}
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways]
  verbs: [get]
{{- end -}}

{{/* What is of no namespace: an operator that watches some alone does without. Held equal to CLUSTER_PERMISSIONS. */}}
{{- define "mizzen.operatorClusterRules" -}}
- apiGroups: [""]
  resources: [nodes] # which accelerators there are
  verbs: [list]
{{- end -}}
