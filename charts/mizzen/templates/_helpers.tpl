{{- define "mizzen.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that select pods; they never change. Call with (list . "component"). */}}
{{- define "mizzen.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: mizzen
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "mizzen.labels" -}}
{{- $root := index . 0 -}}
{{ include "mizzen.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{/* repository@digest where a digest is given, else repository:tag. Call with (list . image). */}}
{{- define "mizzen.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "mizzen.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "mizzen.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "mizzen.scheduling" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Servers bind to the pod's own address: nothing may listen on a wildcard. */}}
{{- define "mizzen.podIP" -}}
- name: MIZZEN_POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end -}}

{{- define "mizzen.trackingUri" -}}
{{- if .Values.mlflow.enabled -}}
http://{{ include "mizzen.fullname" . }}-mlflow.{{ .Release.Namespace }}.svc:5000
{{- else -}}
{{ required "mlflow.trackingUri: name a tracking server, or set mlflow.enabled to true" .Values.mlflow.trackingUri }}
{{- end -}}
{{- end -}}

{{- define "mizzen.gateway" -}}
{{- .Values.gateway.existing | default (printf "%s/%s" .Release.Namespace (include "mizzen.fullname" .)) -}}
{{- end -}}

{{- define "mizzen.gatewayClass" -}}
{{- if .Values.gateway.className -}}
{{ .Values.gateway.className }}
{{- else if .Values.gateway.traefik.enabled -}}
{{ include "mizzen.fullname" . }}-traefik
{{- else -}}
{{- fail "gateway: set existing or className to a gateway of the cluster, or traefik.enabled to true" -}}
{{- end -}}
{{- end -}}

{{/* "true" where the chart brings Traefik itself. */}}
{{- define "mizzen.traefik" -}}
{{- and .Values.gateway.traefik.enabled (not .Values.gateway.existing) (not .Values.gateway.className) -}}
{{- end -}}
